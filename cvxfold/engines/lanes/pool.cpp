#include "pool.hpp"

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace cvxfold {

namespace {
Pool *current = nullptr;
std::once_flag made;

void begin_anew() {
    current = new Pool; // the parent's threads do not exist here, nor can its locks be trusted
}
} // namespace

Pool &Pool::instance() {
    std::call_once(made, [] {
        begin_anew(); // never destroyed: its threads may outlive static objects
#if !defined(_WIN32)
        pthread_atfork(nullptr, nullptr, begin_anew);
#endif
    });
    return *current;
}

void Pool::serve(int number) {
    unsigned long seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
        begin_.wait(lock, [&] { return job_ != seen && open_ && number < wanted_; });
        seen = job_;
        auto work = work_;
        void *argument = argument_;
        active_++;
        lock.unlock();
        work(argument);
        lock.lock();
        if (--active_ == 0)
            end_.notify_one();
    }
}

void Pool::run(int helpers, void (*work)(void *), void *argument) {
    std::unique_lock<std::mutex> mine(busy_, std::try_to_lock);
    if (!mine.owns_lock()) {
        work(argument);
        return;
    }
    {
        std::unique_lock<std::mutex> lock(mutex_);
        while (threads_ < helpers) {
            const int number = threads_;
            try {
                std::thread([this, number] { serve(number); }).detach();
            } catch (...) {
                break; // no more threads to be had
            }
            threads_++;
        }
        work_ = work;
        argument_ = argument;
        wanted_ = helpers;
        job_++;
        open_ = true;
    }
    begin_.notify_all();
    work(argument);
    std::unique_lock<std::mutex> lock(mutex_);
    open_ = false;
    end_.wait(lock, [&] { return active_ == 0; });
}

} // namespace cvxfold
