// For onnx_consumer.cpp: SHA-256, NumPy's .npz, and the difference of two arrays.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

inline void require(bool holds, const std::string& otherwise) {
  if (!holds) throw std::runtime_error(otherwise);
}

template <class T>
std::string bytes_of(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

inline std::ifstream open(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  require(in.is_open(), path.string() + " cannot be read");
  return in;
}

// FIPS 180-4, with the first 32 fractional bits of the roots of the first primes as constants.
inline std::string sha256(const std::filesystem::path& path) {
  auto fraction = [](double x) { return uint32_t((x - std::floor(x)) * 4294967296.0); };
  auto rotate = [](uint32_t x, int by) { return x >> by | x << (32 - by); };
  uint32_t k[64], hash[8];
  for (int p = 2, n = 0; n < 64; ++p) {
    bool prime = true;
    for (int q = 2; q * q <= p; ++q) prime = prime && p % q != 0;
    if (!prime) continue;
    if (n < 8) hash[n] = fraction(std::sqrt(p));
    k[n++] = fraction(std::cbrt(p));
  }
  std::ifstream in = open(path);
  uint64_t total = 0;
  for (bool marked = false, ended = false; !ended;) {
    unsigned char block[64] = {};
    const size_t got = size_t(in.read(reinterpret_cast<char*>(block), 64).gcount());
    total += got;
    if (got < 64 && !marked) block[got] = 0x80, marked = true;  // follows the last byte
    ended = marked && got < 56;                                 // space for the length in bits
    for (int i = 0; ended && i < 8; ++i) block[63 - i] = uint8_t(total * 8 >> 8 * i);
    uint32_t w[64], s[8];
    std::copy(hash, hash + 8, s);
    for (int i = 0; i < 64; ++i) {
      if (i < 16) {
        const unsigned char* b = block + 4 * i;
        w[i] = uint32_t(b[0]) << 24 | uint32_t(b[1]) << 16 | uint32_t(b[2]) << 8 | b[3];
      } else {
        const uint32_t x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + (rotate(x, 7) ^ rotate(x, 18) ^ x >> 3);
        w[i] += w[i - 7] + (rotate(y, 17) ^ rotate(y, 19) ^ y >> 10);
      }
      const uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]), majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
      const uint32_t first = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) + choice + k[i] + w[i];
      const uint32_t second = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + majority;
      std::copy_backward(s, s + 7, s + 8);
      s[4] += first;
      s[0] = first + second;
    }
    for (int i = 0; i < 8; ++i) hash[i] += s[i];
  }
  char text[65];
  for (int i = 0; i < 8; ++i) std::snprintf(text + 8 * i, 9, "%08x", hash[i]);
  return text;
}

inline size_t number(const std::string& bytes, size_t at, int size) {  // little-endian
  return size == 0 ? 0 : (bytes.at(at) & 255) | number(bytes, at + 1, size - 1) << 8;
}

// name -> values as bytes, row by row. numpy.savez writes a zip without compression, in it a .npy file for each array.
inline std::map<std::string, std::string> read_npz(const std::filesystem::path& path) {
  std::ifstream in = open(path);
  const std::string zip(std::istreambuf_iterator<char>(in), {});
  const size_t end = zip.rfind("PK\5\6");  // after the list of files
  require(end != std::string::npos, path.string() + " is not a zip file");
  std::map<std::string, std::string> arrays;
  size_t at = number(zip, end + 16, 4);
  for (size_t count = number(zip, end + 10, 2); count > 0; --count) {
    const size_t name = number(zip, at + 28, 2), file = number(zip, at + 42, 4);
    require(number(zip, at + 10, 2) == 0, path.string() + " is compressed");
    const size_t npy = file + 30 + number(zip, file + 26, 2) + number(zip, file + 28, 2);
    const size_t header = 10 + number(zip, npy + 8, 2);
    arrays[zip.substr(at + 46, name - 4)] = zip.substr(npy + header, number(zip, at + 24, 4) - header);
    at += 46 + name + number(zip, at + 30, 2) + number(zip, at + 32, 2);
  }
  return arrays;
}

// Of float32 values: the largest difference over the largest expected value, infinite if one is not finite.
inline double difference(const std::string& found, const std::string& expected) {
  require(found.size() == expected.size(), "an output is not of the size of its golden one");
  std::vector<float> f(found.size() / sizeof(float)), e(f.size());
  std::memcpy(f.data(), found.data(), found.size());
  std::memcpy(e.data(), expected.data(), found.size());
  double worst = 0, scale = 1e-30;
  for (size_t i = 0; i < f.size(); ++i) {
    worst = std::isfinite(f[i]) ? std::max(worst, std::fabs(double(f[i]) - e[i])) : INFINITY;
    scale = std::max(scale, std::fabs(double(e[i])));
  }
  return worst / scale;
}
