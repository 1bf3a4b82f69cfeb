// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// A pool of std::threads that draw tasks from one counter. Waiting threads sleep; a call from inside a
// task, or while another thread uses the pool, runs on the calling thread alone.
#include "nearfield/executor.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "runtime/environment.h"

namespace nearfield {
namespace {

class ThreadPool final : public Executor {
 public:
  explicit ThreadPool(int threads) {
    try {
      for (int worker = 1; worker < threads; ++worker)
        threads_.emplace_back([this, worker] { wait_for_work(worker); });
    } catch (const std::system_error&) {  // the system gives no more: those that there are will do
    }
  }

  ~ThreadPool() override {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& t : threads_) t.join();
  }

  int workers() const override { return static_cast<int>(threads_.size()) + 1; }

  void run(Index tasks, const std::function<void(Index, int)>& fn) override {
    if (tasks <= 1 || threads_.empty() || busy_.exchange(true)) {
      for (Index t = 0; t < tasks; ++t) fn(t, 0);
      return;
    }
    {
      std::lock_guard lock(mutex_);
      fn_ = &fn;
      tasks_ = tasks;
      next_ = 0;
      error_ = nullptr;
      active_ = static_cast<int>(threads_.size());
      ++generation_;
    }
    wake_.notify_all();
    draw_tasks(0);
    std::exception_ptr error;
    {
      std::unique_lock lock(mutex_);
      done_.wait(lock, [this] { return active_ == 0; });
      error = error_;
    }
    busy_ = false;
    if (error) std::rethrow_exception(error);
  }

 private:
  void draw_tasks(int worker) {
    for (Index t = next_++; t < tasks_; t = next_++) {
      try {
        (*fn_)(t, worker);
      } catch (...) {
        std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
      }
    }
  }

  void wait_for_work(int worker) {
    unsigned seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
      if (stop_) return;
      seen = generation_;
      lock.unlock();
      draw_tasks(worker);
      lock.lock();
      if (--active_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::atomic<bool> busy_{false};
  std::atomic<Index> next_{0};
  const std::function<void(Index, int)>* fn_ = nullptr;
  Index tasks_ = 0;
  std::exception_ptr error_;
  int active_ = 0;
  unsigned generation_ = 0;
  bool stop_ = false;
};

}  // namespace

std::unique_ptr<Executor> make_executor(int threads) {
  if (threads <= 0) threads = std::atoi(environment("NEARFIELD_NUM_THREADS").c_str());
  if (threads <= 0) threads = static_cast<int>(std::thread::hardware_concurrency());
  threads = std::clamp(threads, 1, 1024);
  if (threads == 1) return std::make_unique<SerialExecutor>();
  return std::make_unique<ThreadPool>(threads);
}

}  // namespace nearfield
