// Buffers of packs that are used again by later calls.
#pragma once

#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "kernels/pack.hpp"

namespace cvxfold {

class MemoryPool {
  public:
    explicit MemoryPool(size_t packs) : packs_(packs) {}

    ~MemoryPool() {
        for (Pack *buffer : free_)
            release(buffer);
    }

    MemoryPool(const MemoryPool &) = delete;
    MemoryPool &operator=(const MemoryPool &) = delete;

    // A buffer, zero when new, for as long as this lives.
    class Lease {
      public:
        explicit Lease(MemoryPool &pool) : pool_(pool), memory_(pool.take()) {}
        ~Lease() { pool_.give_back(memory_); }
        Lease(const Lease &) = delete;
        Lease &operator=(const Lease &) = delete;
        Pack *memory() const { return memory_; }

      private:
        MemoryPool &pool_;
        Pack *memory_;
    };

  private:
    Pack *take() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            if (!free_.empty()) {
                Pack *buffer = free_.back();
                free_.pop_back();
                return buffer;
            }
        }
        const size_t bytes = (packs_ + 1) * sizeof(Pack);
        Pack *buffer = static_cast<Pack *>(::operator new(bytes, std::align_val_t(sizeof(Pack))));
        for (size_t i = 0; i < packs_; i++)
            buffer[i] = Pack{};
        return buffer;
    }

    void give_back(Pack *buffer) {
        std::lock_guard<std::mutex> lock(mutex_);
        if (free_.size() < KEPT)
            free_.push_back(buffer);
        else
            release(buffer);
    }

    static void release(Pack *buffer) { ::operator delete(buffer, std::align_val_t(sizeof(Pack))); }

    static constexpr size_t KEPT = 64;
    size_t packs_;
    std::mutex mutex_;
    std::vector<Pack *> free_;
};

} // namespace cvxfold
