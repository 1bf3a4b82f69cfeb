// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// The machine that the pickle in a file of torch.save drives, for dictionaries of tensors: the few opcodes
// that these have. Nothing in the file is executed; whatever is no such dictionary is refused.
#pragma once

#include <ATen/ATen.h>
#include <caffe2/serialize/inline_container.h>

#include <cstring>
#include <deque>
#include <fstream>
#include <map>
#include <variant>

#include "nearfield/torch/arguments.h"

namespace nearfield {

using TensorsByName = std::map<std::string, at::Tensor>;

namespace torch_detail {

class TensorUnpickler {
 public:
  explicit TensorUnpickler(const std::string& path) : path_(readable(path)), reader_(path) {
    if (reader_.hasRecord("byteorder") && record("byteorder") != "little") fail("of another byte order");
    pickle_ = record("data.pkl");
  }

  TensorsByName load() {
    while (step()) {}
    const Value top = pop();
    const auto* dict = std::get_if<Dict>(&top.is);
    if (!dict) fail("that holds no dictionary");
    TensorsByName tensors;
    for (const auto& [key, value] : **dict) {
      const auto* name = std::get_if<std::string>(&key.is);
      const auto* tensor = std::get_if<at::Tensor>(&value.is);
      if (!name || !tensor) fail("with an entry that is no tensor under a name");
      tensors[*name] = *tensor;
    }
    return tensors;
  }

 private:
  struct Value;
  struct Mark {};
  struct Global {
    std::string name;
  };
  struct Stored {
    at::Storage storage;
    at::ScalarType dtype;
  };
  // Containers are the machine's and values point to them: a file may nest them a million deep, or in a circle.
  using Tuple = const std::vector<Value>*;
  using Dict = std::vector<std::pair<Value, Value>>*;
  struct Value {  // a plain value (None, a float: only in what is skipped) is the monostate
    std::variant<std::monostate, Mark, bool, int64_t, std::string, Global, Stored, at::Tensor, Tuple, Dict>
        is;
  };

  [[noreturn]] void fail(const std::string& what) const {
    refuse("load_tensors", path_ + " " + what, "a dictionary of tensors",
           "torch.save(model.state_dict(), path) writes one");
  }

  // The archive's reader has an error of its own for what is no zip file, with a backtrace for a message.
  static const std::string& readable(const std::string& path) {
    char head[2] = {};
    std::ifstream file(path, std::ios::binary);
    if (!file.read(head, 2) || head[0] != 'P' || head[1] != 'K')
      refuse("load_tensors",
             path + (file.is_open() ? " that is no file of torch.save" : " that cannot be read"),
             "a dictionary of tensors", "torch.save(model.state_dict(), path) writes one");
    return path;
  }

  std::string record(const std::string& name) {
    auto [data, size] = reader_.getRecord(name);
    return std::string(static_cast<const char*>(data.get()), size);
  }

  template <class T>
  T number() {
    T x;
    if (pickle_.size() - at_ < sizeof x) fail("that ends too early");
    std::memcpy(&x, pickle_.data() + at_, sizeof x);
    at_ += sizeof x;
    return x;
  }

  std::string bytes(std::size_t n) {
    if (pickle_.size() - at_ < n) fail("that ends too early");
    at_ += n;
    return pickle_.substr(at_ - n, n);
  }

  std::string line() {
    const std::size_t end = pickle_.find('\n', at_);
    if (end == std::string::npos) fail("that ends too early");
    const std::string text = bytes(end - at_);
    ++at_;
    return text;
  }

  template <class T>
  void push(T x) {
    stack_.push_back({std::move(x)});
  }

  Value pop() {
    if (stack_.empty()) fail("that is no pickle");
    Value top = std::move(stack_.back());
    stack_.pop_back();
    return top;
  }

  template <class T>
  T pop_as(const char* what) {
    Value top = pop();
    if (auto* x = std::get_if<T>(&top.is)) return std::move(*x);
    fail(std::string("with something else for ") + what);
  }

  // The last n values, in their order.
  std::vector<Value> last(std::size_t n) {
    if (stack_.size() < n) fail("that is no pickle");
    std::vector<Value> values(std::make_move_iterator(stack_.end() - static_cast<std::ptrdiff_t>(n)),
                              std::make_move_iterator(stack_.end()));
    stack_.resize(stack_.size() - n);
    return values;
  }

  std::vector<Value> since_mark() {
    std::size_t n = 0;
    while (n < stack_.size() && !std::holds_alternative<Mark>(stack_[stack_.size() - 1 - n].is)) ++n;
    std::vector<Value> values = last(n);
    pop_as<Mark>("a mark");
    return values;
  }

  void push_tuple(std::vector<Value> values) { push(Tuple(&tuples_.emplace_back(std::move(values)))); }

  void set_items(const std::vector<Value>& values) {
    const Dict* dict = stack_.empty() ? nullptr : std::get_if<Dict>(&stack_.back().is);
    if (!dict || values.size() % 2 != 0) fail("that is no pickle");
    for (std::size_t i = 0; i < values.size(); i += 2) (*dict)->emplace_back(values[i], values[i + 1]);
  }

  // ("storage", class of the storage, key, device, number of elements): the file's record data/KEY.
  void push_storage() {
    const Tuple id = pop_as<Tuple>("a storage");
    if (id->size() < 3) fail("that is no pickle");
    const auto* type = std::get_if<Global>(&(*id)[1].is);
    const auto* key = std::get_if<std::string>(&(*id)[2].is);
    static const std::map<std::string, at::ScalarType> kTypes = {
        {"torch.FloatStorage", at::kFloat},
        {"torch.DoubleStorage", at::kDouble},
        {"torch.HalfStorage", at::kHalf},
        {"torch.BFloat16Storage", at::kBFloat16},
        {"torch.LongStorage", at::kLong},
        {"torch.IntStorage", at::kInt},
        {"torch.ShortStorage", at::kShort},
        {"torch.CharStorage", at::kChar},
        {"torch.ByteStorage", at::kByte},
        {"torch.BoolStorage", at::kBool},
        {"torch.ComplexFloatStorage", at::kComplexFloat},
        {"torch.ComplexDoubleStorage", at::kComplexDouble}};
    if (!type || !key || !kTypes.contains(type->name)) fail("with a storage of another kind");
    at::Storage& storage = storages_[*key];
    if (!storage) {
      auto [data, size] = reader_.getRecord("data/" + *key);
      storage = at::Storage(at::Storage::use_byte_size_t(), size, std::move(data), nullptr, false);
    }
    push(Stored{storage, kTypes.at(type->name)});
  }

  std::vector<int64_t> ints(const Value& value) const {
    const auto* tuple = std::get_if<Tuple>(&value.is);
    if (!tuple) fail("with a tensor of another form");
    std::vector<int64_t> numbers;
    for (const Value& v : **tuple) {
      const auto* n = std::get_if<int64_t>(&v.is);
      if (!n) fail("with a tensor of another form");
      numbers.push_back(*n);
    }
    return numbers;
  }

  // {"conj": True, "neg": True}: what the numbers in the file stand for.
  at::Tensor with_metadata(at::Tensor tensor, const Value& metadata) const {
    const auto* dict = std::get_if<Dict>(&metadata.is);
    if (!dict) return tensor;
    for (const auto& [key, value] : **dict) {
      const auto* name = std::get_if<std::string>(&key.is);
      const auto* on = std::get_if<bool>(&value.is);
      if (!name || !on || (*name != "conj" && *name != "neg")) fail("with a tensor of another form");
      if (*on) tensor = *name == "conj" ? tensor.conj().resolve_conj() : tensor.neg();
    }
    return tensor;
  }

  void call() {
    const std::vector<Value> arguments = *pop_as<Tuple>("arguments");
    const std::string name = pop_as<Global>("a function").name;
    if (name == "collections.OrderedDict" && arguments.empty()) {
      push(Dict(&dicts_.emplace_back()));
    } else if (name == "torch._utils._rebuild_tensor_v2" && arguments.size() >= 4) {
      const auto* stored = std::get_if<Stored>(&arguments[0].is);
      const auto* offset = std::get_if<int64_t>(&arguments[1].is);
      if (!stored || !offset) fail("with a tensor of another form");
      at::Tensor tensor = at::empty({0}, stored->dtype);
      tensor.set_(stored->storage, *offset, ints(arguments[2]), ints(arguments[3]));
      push(arguments.size() > 6 ? with_metadata(std::move(tensor), arguments[6]) : std::move(tensor));
    } else if (name == "torch._utils._rebuild_parameter" && !arguments.empty()) {
      stack_.push_back(arguments[0]);
    } else {
      fail("with " + name);
    }
  }

  // One instruction; false at the end. https://docs.python.org/3/library/pickletools.html
  bool step() {
    switch (const auto opcode = number<uint8_t>()) {
      case 0x80: number<uint8_t>(); break;      // PROTO
      case '.': return false;                   // STOP
      case 'N': push(std::monostate()); break;  // NONE
      case 0x88:
      case 0x89: push(opcode == 0x88); break;  // NEWTRUE, NEWFALSE
      case 'G':
        bytes(8);
        push(std::monostate());
        break;                                             // BINFLOAT
      case 'K': push(int64_t{number<uint8_t>()}); break;   // BININT1
      case 'M': push(int64_t{number<uint16_t>()}); break;  // BININT2
      case 'J': push(int64_t{number<int32_t>()}); break;   // BININT
      case 0x8a: push_long(); break;                       // LONG1
      case 'X': push(bytes(number<uint32_t>())); break;    // BINUNICODE
      case 'c': push_global(); break;                      // GLOBAL
      case '(': push(Mark()); break;                       // MARK
      case ')': push_tuple({}); break;                     // EMPTY_TUPLE
      case 't': push_tuple(since_mark()); break;           // TUPLE
      case 0x85:
      case 0x86:
      case 0x87: push_tuple(last(opcode - 0x84u)); break;   // TUPLE1, 2, 3
      case '}': push(Dict(&dicts_.emplace_back())); break;  // EMPTY_DICT
      case 's': set_items(last(2)); break;                  // SETITEM
      case 'u': set_items(since_mark()); break;             // SETITEMS
      case 'q': memo_[number<uint8_t>()] = top(); break;    // BINPUT
      case 'r': memo_[number<uint32_t>()] = top(); break;   // LONG_BINPUT
      case 'h': recall(number<uint8_t>()); break;           // BINGET
      case 'j': recall(number<uint32_t>()); break;          // LONG_BINGET
      case 'Q': push_storage(); break;                      // BINPERSID
      case 'R': call(); break;                              // REDUCE
      case 'b': pop(); break;                               // BUILD: a state_dict's _metadata
      default: fail("with the pickle opcode " + std::to_string(opcode));
    }
    return true;
  }

  void push_long() {
    const std::string digits = bytes(number<uint8_t>());
    if (digits.size() > 8) fail("with a number of more than 64 bits");
    uint64_t n = !digits.empty() && (digits.back() & 0x80) ? ~uint64_t{0} : 0;
    for (std::size_t i = digits.size(); i-- > 0;) n = n << 8 | static_cast<uint8_t>(digits[i]);
    push(static_cast<int64_t>(n));
  }

  void push_global() {
    const std::string module = line();
    push(Global{module + "." + line()});
  }

  const Value& top() const {
    if (stack_.empty()) fail("that is no pickle");
    return stack_.back();
  }

  void recall(uint32_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) fail("that is no pickle");
    stack_.push_back(found->second);
  }

  std::string path_, pickle_;
  caffe2::serialize::PyTorchStreamReader reader_;
  std::size_t at_ = 0;
  std::vector<Value> stack_;
  std::map<uint32_t, Value> memo_;
  std::deque<std::vector<Value>> tuples_;
  std::deque<std::vector<std::pair<Value, Value>>> dicts_;
  std::map<std::string, at::Storage> storages_;
};

}  // namespace torch_detail

}  // namespace nearfield
