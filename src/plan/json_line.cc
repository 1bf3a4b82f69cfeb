// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
#include "plan/json_line.h"

#include <cctype>
#include <stdexcept>

namespace nearfield {
namespace {

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::map<std::string, std::string> object() {
    std::map<std::string, std::string> all;
    expect('{');
    if (!taken('}')) {
      do {
        const std::string key = string();
        expect(':');
        if (!all.try_emplace(key, value()).second) fail("the key " + key + " twice");
      } while (taken(','));
      expect('}');
    }
    space();
    if (at_ != text_.size()) fail("more behind the object");
    return all;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw std::invalid_argument(what + " at column " + std::to_string(at_ + 1));
  }
  void space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  bool taken(char c) {
    space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!taken(c)) fail(std::string("no `") + c + "`");
  }

  std::string string() {
    expect('"');
    std::string s;
    for (; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      char c = text_[at_];
      if (c == '\\') {
        if (++at_ == text_.size()) break;
        c = text_[at_];
        if (c == 'n') c = '\n';
        else if (c == 't') c = '\t';
        else if (c != '"' && c != '\\' && c != '/') fail("an escape that is not served");
      }
      s += c;
    }
    if (at_ == text_.size()) fail("a string that does not end");
    ++at_;
    return s;
  }

  std::string value() {
    space();
    if (at_ < text_.size() && text_[at_] == '"') return string();
    const std::size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) ||
                                  std::string_view("+-.").find(text_[at_]) != std::string_view::npos))
      ++at_;
    if (at_ == begin) fail("no string or number");
    return std::string(text_.substr(begin, at_ - begin));
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

std::map<std::string, std::string> parse_json_line(std::string_view line) { return Parser(line).object(); }

}  // namespace nearfield
