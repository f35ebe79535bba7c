// Replaces onnxruntime's header of this name, which the Python packages do not contain.
//
// The C API is a table of functions that only grows at its end, so that every library serves the table of version 1.
// Here are the entries that onnx_consumer.cpp calls, at their places in that table, for Linux and macOS. With the
// official header, build with: make -C examples ORT_INCLUDE=/path/to/include
#pragma once

#include <cstddef>
#include <cstdint>

constexpr uint32_t ORT_API_VERSION = 1;

enum OrtLoggingLevel { ORT_LOGGING_LEVEL_ERROR = 3 };
enum OrtAllocatorType { OrtDeviceAllocator = 0 };
enum OrtMemType { OrtMemTypeDefault = 0 };
enum ONNXTensorElementDataType {
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 = 2,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL = 9,
};

struct OrtEnv;
struct OrtMemoryInfo;
struct OrtRunOptions;
struct OrtSession;
struct OrtSessionOptions;
struct OrtStatus;  // null is success
struct OrtValue;

struct OrtApi {
  void* entries_0_1[2];
  const char* (*GetErrorMessage)(const OrtStatus*);
  OrtStatus* (*CreateEnv)(OrtLoggingLevel, const char* name, OrtEnv**);
  void* entries_4_6[3];
  OrtStatus* (*CreateSession)(const OrtEnv*, const char* file, const OrtSessionOptions*, OrtSession**);
  void* entry_8;
  OrtStatus* (*Run)(OrtSession*, const OrtRunOptions*, const char* const* input_names, const OrtValue* const* inputs,
                    size_t input_count, const char* const* output_names, size_t output_count, OrtValue** outputs);
  OrtStatus* (*CreateSessionOptions)(OrtSessionOptions**);
  void* entries_11_48[38];
  OrtStatus* (*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo*, void* data, size_t bytes, const int64_t* shape,
                                               size_t dimensions, ONNXTensorElementDataType, OrtValue**);
  void* entries_50_68[19];
  OrtStatus* (*CreateCpuMemoryInfo)(OrtAllocatorType, OrtMemType, OrtMemoryInfo**);
  void* entries_70_91[22];
  void (*ReleaseEnv)(OrtEnv*);
  void (*ReleaseStatus)(OrtStatus*);
  void (*ReleaseMemoryInfo)(OrtMemoryInfo*);
  void (*ReleaseSession)(OrtSession*);
  void (*ReleaseValue)(OrtValue*);
  void* entries_97_99[3];
  void (*ReleaseSessionOptions)(OrtSessionOptions*);
};
static_assert(offsetof(OrtApi, ReleaseSessionOptions) == 100 * sizeof(void*), "an entry has left its place");

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);  // null if the library is older than that version
  const char* (*GetVersionString)();
};

extern "C" const OrtApiBase* OrtGetApiBase();
