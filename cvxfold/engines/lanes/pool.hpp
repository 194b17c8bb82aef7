// Threads that sleep until there is work.
//
// OpenMP would bind to the library that torch has loaded, whose waiting threads spin and take the processor
// from whoever needs it. Here helpers wait on a condition, and a caller waits only for those that have begun.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>

namespace cvxfold {

class Pool {
  public:
    // Calls work(argument) here and on up to `helpers` other threads at once. Alone where the pool is busy.
    void run(int helpers, void (*work)(void *), void *argument);

    // The one of this process; a forked child gets its own.
    static Pool &instance();

  private:
    void serve(int number);

    std::mutex busy_, mutex_;
    std::condition_variable begin_, end_;
    void (*work_)(void *) = nullptr;
    void *argument_ = nullptr;
    int threads_ = 0, wanted_ = 0, active_ = 0;
    unsigned long job_ = 0;
    bool open_ = false;
};

// Calls work() on up to that many threads, this one among them.
//
// Throws std::bad_alloc where a thread threw anything: an exception that left a helper would end the process.
template <typename Work> void in_parallel(int threads, Work work) {
    std::atomic<bool> failed(false);
    auto guarded = [&] {
        try {
            work();
        } catch (...) {
            failed = true;
        }
    };
    if (threads <= 1)
        guarded();
    else
        Pool::instance().run(
            threads - 1, [](void *argument) { (*static_cast<decltype(guarded) *>(argument))(); }, &guarded);
    if (failed)
        throw std::bad_alloc();
}

} // namespace cvxfold
