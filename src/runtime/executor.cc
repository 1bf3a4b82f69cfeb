// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// A pool of std::threads that draw tasks from one counter. A call from inside a task, or while another thread uses the
// pool, runs on the calling thread alone. A waiting thread polls for a moment before it sleeps, since waking it takes
// as long as a small problem; a call does not wait for threads that are not awake when its last task is drawn.
#include "nearfield/executor.h"

#include <algorithm>
#include <atomic>
#include <chrono>
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
      work_ = {&fn, tasks};
      next_ = 0;
      error_ = nullptr;
      ++generation_;
    }
    wake_.notify_all();
    draw_tasks({&fn, tasks}, 0);
    std::exception_ptr error;
    poll([this] { return active_ == 0; });
    {
      std::unique_lock lock(mutex_);
      work_ = {};  // who comes now comes too late
      done_.wait(lock, [this] { return active_ == 0; });
      error = error_;
    }
    busy_ = false;
    if (error) std::rethrow_exception(error);
  }

 private:
  struct Work {
    const std::function<void(Index, int)>* fn = nullptr;  // null: none
    Index tasks = 0;
  };

  void draw_tasks(const Work& work, int worker) {
    for (Index t = next_++; t < work.tasks; t = next_++) {
      try {
        (*work.fn)(t, worker);
      } catch (...) {
        std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
      }
    }
  }

  void wait_for_work(int worker) {
    unsigned seen = 0;
    for (;;) {
      poll([&] { return generation_ != seen; });
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
      if (stop_) return;
      seen = generation_;
      if (!work_.fn) continue;
      ++active_;
      const Work work = work_;
      lock.unlock();
      draw_tasks(work, worker);
      lock.lock();
      if (--active_ == 0) done_.notify_one();
    }
  }

  // Until ready() or some time has passed.
  template <class Ready>
  static void poll(const Ready& ready) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (!ready() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  }
  static constexpr std::chrono::microseconds kPatience{200};

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::atomic<bool> busy_{false};
  std::atomic<Index> next_{0};
  Work work_;
  std::exception_ptr error_;
  std::atomic<int> active_{0};  // threads at work, besides the caller
  std::atomic<unsigned> generation_{0};
  bool stop_ = false;
};

}  // namespace

std::unique_ptr<Executor> make_executor(int threads) {
  if (threads <= 0) threads = environment_number("NEARFIELD_NUM_THREADS");
  if (threads <= 0) threads = static_cast<int>(std::thread::hardware_concurrency());
  threads = std::clamp(threads, 1, 1024);
  if (threads == 1) return std::make_unique<SerialExecutor>();
  return std::make_unique<ThreadPool>(threads);
}

}  // namespace nearfield
