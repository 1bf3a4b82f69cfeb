// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// Executors: every task once, no worker twice at a time, exceptions out, any number of runs and callers.
// (The thread sanitizer reads this.)
#include "nearfield/executor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace nearfield {
namespace {

std::vector<std::unique_ptr<Executor>> executors() {
  std::vector<std::unique_ptr<Executor>> list;
  list.push_back(std::make_unique<SerialExecutor>());
  for (const int threads : {1, 2, 3, 8}) {
    list.push_back(make_executor(threads));
    EXPECT_EQ(list.back()->workers(), threads);
  }
  list.push_back(make_executor());
  EXPECT_GE(list.back()->workers(), 1);
  return list;
}

TEST(Executor, EveryTaskOnceByOneWorkerAtATime) {
  for (const auto& executor : executors())
    for (const Index tasks : {Index{0}, Index{1}, Index{2}, Index{7}, Index{1000}}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(tasks));
      std::vector<std::atomic<int>> busy(static_cast<std::size_t>(executor->workers()));
      std::atomic<bool> ok{true};
      executor->run(tasks, [&](Index task, int worker) {
        if (task < 0 || task >= tasks || worker < 0 || worker >= executor->workers()) {
          ok = false;
          return;
        }
        if (busy[static_cast<std::size_t>(worker)]++ != 0) ok = false;
        ++runs[static_cast<std::size_t>(task)];
        if (tasks < 10) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        --busy[static_cast<std::size_t>(worker)];
      });
      EXPECT_TRUE(ok);
      for (const auto& n : runs) EXPECT_EQ(n, 1);
    }
}

TEST(Executor, WhatTasksWroteIsSeenAfterwards) {
  const auto executor = make_executor(4);
  for (int round = 0; round < 200; ++round) {
    std::vector<int> plain(50);  // not atomic: run() itself must order this
    executor->run(
        50, [&](Index task, int) { plain[static_cast<std::size_t>(task)] = round + static_cast<int>(task); });
    for (int i = 0; i < 50; ++i) ASSERT_EQ(plain[static_cast<std::size_t>(i)], round + i);
  }
}

TEST(Executor, FirstExceptionComesOutAfterTheOthersEnded) {
  for (const auto& executor : executors()) {
    std::atomic<int> running{0};
    for (int round = 0; round < 20; ++round) {
      try {
        executor->run(100, [&](Index task, int) {
          ++running;
          if (task % 10 == 3) {
            --running;
            throw std::runtime_error("task");
          }
          --running;
        });
        ADD_FAILURE() << "no exception";
      } catch (const std::runtime_error& e) {
        EXPECT_STREQ(e.what(), "task");
        EXPECT_EQ(running, 0);
      }
    }
    Index sum = 0;
    executor->run(1, [&](Index, int) { sum = 7; });  // and it still works
    EXPECT_EQ(sum, 7);
  }
}

TEST(Executor, ManyCallersShareOnePool) {
  const auto executor = make_executor(3);
  std::vector<std::thread> callers;
  std::atomic<Index> total{0};
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int round = 0; round < 50; ++round) executor->run(20, [&](Index task, int) { total += task; });
    });
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(total, 4 * 50 * 190);
}

// A task that runs a loop of its own must not wait for itself.
TEST(Executor, NestedRunsEnd) {
  const auto executor = make_executor(2);
  std::atomic<int> inner{0};
  executor->run(4, [&](Index, int) { executor->run(5, [&](Index, int) { ++inner; }); });
  EXPECT_EQ(inner, 20);
}

TEST(Executor, PoolsComeAndGo) {
  for (int i = 0; i < 50; ++i) {
    const auto executor = make_executor(3);
    if (i % 2) executor->run(3, [](Index, int) {});
  }
}

TEST(Executor, OddNumbersOfThreads) {
  EXPECT_GE(make_executor(-1)->workers(), 1);
  EXPECT_NO_THROW(make_executor(0)->run(3, [](Index, int) {}));
}

TEST(Executor, ThreadsOfTheEnvironment) {
  const char* name = "NEARFIELD_NUM_THREADS";
  const char* had = std::getenv(name);
  const std::string before = had ? had : "";
  setenv(name, "3", 1);
  EXPECT_EQ(make_executor()->workers(), 3);
  EXPECT_EQ(make_executor(2)->workers(), 2);
  for (const char* bad : {"abc", "0", "-1", "2x", " 2", "99999999999"}) {
    setenv(name, bad, 1);
    try {
      make_executor();
      ADD_FAILURE() << bad;
    } catch (const std::invalid_argument& e) {
      EXPECT_NE(std::string(e.what()).find(std::string("NEARFIELD_NUM_THREADS=") + bad + ", expected "),
                std::string::npos)
          << e.what();
    }
  }
  if (had) setenv(name, before.c_str(), 1);
  else unsetenv(name);
}

}  // namespace
}  // namespace nearfield
