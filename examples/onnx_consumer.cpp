// Run a bundle with onnxruntime's C API and its contract alone: onnx_consumer.py in C++17.
//
//     make -C examples && runs/examples/onnx_consumer build/bundle
//
// Exit status: 0 where every output is within the contract's tolerance, 1 where not, 2 if the bundle cannot be read.
#include <onnxruntime_c_api.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "support.h"

using nlohmann::json;
using std::string;
template <class T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

const OrtApi* const ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);

void check(OrtStatus* raw) {
  const Owned<OrtStatus> status(raw, ort->ReleaseStatus);
  if (status) throw std::runtime_error(ort->GetErrorMessage(raw));
}

template <class T, class Create, class... Arguments>
Owned<T> make(void (*release)(T*), Create create, Arguments... arguments) {  // owns an object of the C API
  T* made = nullptr;
  check(create(arguments..., &made));
  return {made, release};
}

// One ONNX file with a buffer for each input and output, including its state.
class Graph {
 public:
  Graph(const OrtEnv* env, const std::filesystem::path& file, const json& graph)
      : spec(graph),
        session(make(ort->ReleaseSession, ort->CreateSession, env, file.c_str(),
                     make(ort->ReleaseSessionOptions, ort->CreateSessionOptions).get())) {
    std::map<string, double> initial;  // before the first step: one value everywhere
    for (const json& state : spec.at("states")) initial[state.at("input")] = state.at("initial");
    for (const char* side : {"inputs", "outputs"})
      for (const json& tensor : spec.at(side)) allocate(tensor, initial[tensor.at("name")]);
  }

  size_t size(const string& name) const { return tensors.at(name).bytes.size(); }

  void set(const string& name, const string& bytes) {
    require(bytes.size() == size(name), name + " is not of the size that the contract says");
    std::copy(bytes.begin(), bytes.end(), tensors.at(name).bytes.begin());
  }

  string step() {  // the graph's first output: audio, x, h or logits. The others are the next step's state
    std::vector<const char*> names[2];
    std::vector<OrtValue*> values[2];
    for (int side : {0, 1})
      for (const json& tensor : spec.at(side == 0 ? "inputs" : "outputs")) {
        names[side].push_back(tensor.at("name").get_ref<const string&>().c_str());
        values[side].push_back(tensors.at(names[side].back()).value.get());
      }
    check(ort->Run(session.get(), nullptr, names[0].data(), values[0].data(), names[0].size(), names[1].data(),
                   names[1].size(), values[1].data()));
    for (const json& pair : spec.at("states")) std::swap(tensors.at(pair.at("input")), tensors.at(pair.at("output")));
    const std::vector<char>& first = tensors.at(names[1].at(0)).bytes;
    return {first.begin(), first.end()};
  }

 private:
  struct Tensor {
    std::vector<char> bytes;
    Owned<OrtValue> value;  // a view of them
  };

  void allocate(const json& tensor, double initial) {
    const std::map<string, std::pair<ONNXTensorElementDataType, string>> types = {
        {"bool", {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, bytes_of(initial != 0)}},
        {"uint8", {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, bytes_of(uint8_t(initial))}},
        {"int64", {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, bytes_of(int64_t(initial))}},
        {"float32", {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, bytes_of(float(initial))}}};
    const auto& [type, one] = types.at(tensor.at("dtype"));
    const std::vector<int64_t> shape = tensor.at("shape");
    std::vector<char> bytes(one.size());
    for (int64_t n : shape) bytes.resize(bytes.size() * size_t(n));
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = one[i % one.size()];
    const auto cpu = make(ort->ReleaseMemoryInfo, ort->CreateCpuMemoryInfo, OrtDeviceAllocator, OrtMemTypeDefault);
    auto value = make(ort->ReleaseValue, ort->CreateTensorWithDataAsOrtValue, cpu.get(), bytes.data(), bytes.size(),
                      shape.data(), shape.size(), type);
    tensors.emplace(tensor.at("name"), Tensor{std::move(bytes), std::move(value)});
  }

  const json& spec;
  Owned<OrtSession> session;
  std::map<string, Tensor> tensors;
};

// Stream the golden inputs through the graphs of one opset; returns the largest difference to PyTorch's outputs.
double replay(const OrtEnv* env, const std::filesystem::path& bundle, const json& contract, const json& files) {
  const json& graphs = contract.at("graphs");
  const auto load = [&](const char* name) { return Graph(env, bundle / files.at(name), graphs.at(name)); };
  Graph audio = load("audio_step"), aligned = load("encoder_combiner_step"), latent = load("latent_step");
  Graph text = load("text_step");
  const json &golden = contract.at("golden"), &clip = contract.at("clip");
  const std::map<string, string> arrays = read_npz(bundle / golden.at("file"));
  const auto part = [&](const char* name, size_t t, size_t size) { return arrays.at(name).substr(t * size, size); };
  double worst = 0;
  const auto compare = [&](const string& found, const char* name, size_t t) {
    worst = std::max(worst, difference(found, part(name, t, found.size())));
  };
  const double rate = clip.at("sample_rate"), frames = clip.at("frames_per_chunk"), fps = clip.at("fps");
  for (size_t t = 0, low = 0, high; t < golden.at("chunks"); ++t, low = high) {  // a stream: one chunk after the other
    high = size_t(double(t + 1) * (frames / fps) * rate + 0.5);
    string samples = arrays.at("samples").substr(low * sizeof(float), (high - low) * sizeof(float));
    samples.resize(audio.size("samples"));  // ignored after the count
    audio.set("samples", samples);
    audio.set("count", bytes_of(int64_t(high - low)));
    compare(audio.step(), "audio", t);
    for (const char* name : {"video", "audio", "video_present", "audio_present"})
      aligned.set(name, part(name, t, aligned.size(name)));
    const string x = aligned.step();
    compare(x, "x", t);
    latent.set("x", x);
    compare(latent.step(), "h", t);
  }
  for (const char* name : {"memory", "memory_valid"}) text.set(name, arrays.at(name));  // h of the last chunks
  for (size_t i = 0; i < golden.at("tokens"); ++i) {  // a text: one token after the other
    text.set("token", part("token", i, text.size("token")));
    compare(text.step(), "logits", i);
  }
  return worst;
}

int main(int count, char** arguments) try {
  require(count == 2, "usage: onnx_consumer BUNDLE");
  require(ort != nullptr, "this onnxruntime is older than the header that the program was built with");
  const std::filesystem::path bundle = arguments[1];
  const json contract = json::parse(open(bundle / "contract.json"));
  require(contract.at("version") == 2, "the contract is of a version that this program does not know");
  for (const auto& [name, expected] : contract.at("files").items())
    require(sha256(bundle / name) == expected, name + " is not the file that was exported");
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // read here: else onnxruntime sends usage data
  const auto env = make(ort->ReleaseEnv, ort->CreateEnv, ORT_LOGGING_LEVEL_ERROR, "onnx_consumer");
  double worst = 0;
  for (const json& files : contract.at("opsets")) worst = std::max(worst, replay(env.get(), bundle, contract, files));
  const double tolerance = contract.at("golden").at("tolerance");
  std::printf("largest relative difference to PyTorch: %.1e (the contract allows %.0e)\n", worst, tolerance);
  return worst <= tolerance ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "the bundle cannot be read: %s\n", error.what());
  return 2;
}
