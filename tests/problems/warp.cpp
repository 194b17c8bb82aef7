// warp.hpp's threads. Reads and writes are seen as ThreadSanitizer's are: the kernels are compiled with
// -fsanitize=thread, and what that calls is here, in the place of its library.
#include "warp.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <set>
#include <string>
#include <ucontext.h>
#include <unordered_map>
#include <utility>
#include <vector>

Index threadIdx, blockIdx, gridDim;

namespace {

constexpr int THREADS = 32;
constexpr size_t STACK = 1 << 20;

enum Kind { BARRIER, SHUFFLE, VOTE };

struct Thread {
    ucontext_t context;
    bool waits, ended;
    unsigned mask; // whom it waits for
    Kind kind;
    int distance;
    const void *place; // where
    double given, got;
    int seen[THREADS]; // of each thread the steps, from barrier to barrier, that are in order before its own;
                       // its own
};

std::vector<char> stacks(THREADS *STACK);
Thread threads[THREADS];
ucontext_t scheduler;
const std::function<void()> *at_work;
std::set<std::pair<const void *, const void *>> races;
std::string said;

// An access of a number. Of two blocks none is in order; of one, those after which threads have waited for
// each other.
struct Access {
    int block = -1, thread = -1, step = 0;
    const void *place = nullptr;

    bool before(const Access &now) const {
        return block < 0 || (block == now.block && step <= threads[now.thread].seen[thread]);
    }
};
struct Cell {
    Access write, reads[2]; // of two threads, the last ones
};
std::unordered_map<uintptr_t, Cell> cells;

Access now(const void *place) {
    const int t = threadIdx.x;
    return {blockIdx.x, t, threads[t].seen[t], place};
}

void report(const Access &before, const Access &after) {
    if (!before.before(after))
        races.insert({before.place, after.place});
}

void see(const void *address, size_t size, bool writes, const void *place) {
    const char *at = static_cast<const char *>(address);
    if (!at_work || (at >= stacks.data() && at < stacks.data() + stacks.size()))
        return;
    const Access mine = now(place);
    const size_t unit = size < 4 ? 1 : 4;
    for (size_t k = 0; k < size; k += unit) {
        Cell &cell = cells[reinterpret_cast<uintptr_t>(at + k)];
        report(cell.write, mine);
        if (writes) {
            report(cell.reads[0], mine);
            report(cell.reads[1], mine);
            cell = Cell{};
            cell.write = mine;
        } else if (cell.reads[0].thread == mine.thread || cell.reads[0].before(mine)) {
            cell.reads[0] = mine;
        } else {
            cell.reads[1] = mine;
        }
    }
}

void body() {
    (*at_work)();
    threads[threadIdx.x].ended = true;
    swapcontext(&threads[threadIdx.x].context, &scheduler);
}

// Waits for those of `mask`; returns what they have given.
double wait(unsigned mask, Kind kind, int distance, double given, const void *place) {
    Thread &mine = threads[threadIdx.x];
    mine.waits = true, mine.mask = mask, mine.kind = kind, mine.distance = distance, mine.place = place;
    mine.given = given;
    swapcontext(&mine.context, &scheduler);
    return mine.got;
}

std::string apart(const void *one, const void *other) {
    const auto offset = [](const void *place) {
        Dl_info info{};
        if (!place || !dladdr(place, &info))
            return std::string("0");
        char text[32];
        std::snprintf(text, sizeof text, "%zx",
                      size_t(static_cast<const char *>(place) - static_cast<const char *>(info.dli_fbase)) -
                          1);
        return std::string(text);
    };
    return offset(one) + " " + offset(other);
}

// Lets those go on of whom all have come; says where they wait in vain, and returns false, where there are
// none.
bool release() {
    std::string in_vain;
    for (int t = 0; t < THREADS; t++) {
        const Thread &first = threads[t];
        if (!first.waits || first.ended)
            continue;
        const Thread *other = nullptr;
        for (int k = 0; k < THREADS; k++) {
            const Thread &one = threads[k];
            if ((first.mask >> k & 1) && (one.ended || one.mask != first.mask || one.kind != first.kind ||
                                          one.distance != first.distance || one.place != first.place))
                other = &one;
        }
        if (other) {
            in_vain = "apart " + apart(first.place, other->ended ? nullptr : other->place) + "\n";
            continue;
        }
        for (int k = 0; k < THREADS; k++) {
            if (!(first.mask >> k & 1))
                continue;
            Thread &one = threads[k];
            if (one.kind == SHUFFLE) {
                one.got = threads[k ^ one.distance].given;
            } else if (one.kind == VOTE) {
                one.got = 1;
                for (int other = 0; other < THREADS; other++)
                    if (first.mask >> other & 1)
                        one.got *= threads[other].given != 0;
            }
        }
        int seen[THREADS] = {};
        for (int k = 0; k < THREADS; k++)
            for (int t = 0; t < THREADS && (first.mask >> k & 1); t++)
                seen[t] = std::max(seen[t], threads[k].seen[t]);
        const unsigned mask = first.mask;
        const bool orders = first.kind == BARRIER; // alone orders what is in memory
        for (int k = 0; k < THREADS; k++)
            if (mask >> k & 1) {
                threads[k].waits = false;
                if (orders) {
                    std::copy(seen, seen + THREADS, threads[k].seen);
                    threads[k].seen[k]++;
                }
            }
        return true;
    }
    said += in_vain;
    return false;
}

} // namespace

__attribute__((noinline)) void __syncwarp(unsigned mask) {
    wait(mask, BARRIER, 0, 0, __builtin_return_address(0));
}
__attribute__((noinline)) double __shfl_xor_sync(unsigned mask, double value, int distance) {
    return wait(mask, SHUFFLE, distance, value, __builtin_return_address(0));
}
__attribute__((noinline)) bool __all_sync(unsigned mask, bool mine) {
    return wait(mask, VOTE, 0, mine, __builtin_return_address(0)) != 0;
}
__attribute__((noinline)) bool __any_sync(unsigned mask, bool mine) {
    return wait(mask, VOTE, 0, !mine, __builtin_return_address(0)) == 0;
}
int atomicAdd(int *counter, int by) {
    const int before = *counter;
    *counter += by;
    return before;
}

const char *run_warps(int blocks, unsigned lot, const std::function<void()> &kernel) {
    at_work = &kernel;
    cells.clear(), races.clear(), said.clear();
    uint64_t state = lot + 0x9e3779b97f4a7c15ULL;
    const auto drawn = [&](int below) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        return int((state >> 33) % below);
    };
    gridDim.x = blocks;
    for (int block = 0; block < blocks && said.empty(); block++) {
        for (int t = 0; t < THREADS; t++) {
            Thread &one = threads[t];
            one = Thread{};
            one.seen[t] = 1;
            getcontext(&one.context);
            one.context.uc_stack.ss_sp = stacks.data() + t * STACK;
            one.context.uc_stack.ss_size = STACK;
            makecontext(&one.context, body, 0);
        }
        for (;;) {
            int ready[THREADS], count = 0, ended = 0;
            for (int t = 0; t < THREADS; t++) {
                ended += threads[t].ended;
                if (!threads[t].ended && !threads[t].waits)
                    ready[count++] = t;
            }
            if (ended == THREADS)
                break;
            if (!count) {
                if (release())
                    continue;
                break;
            }
            blockIdx.x = block;
            threadIdx.x = ready[drawn(count)];
            swapcontext(&scheduler, &threads[threadIdx.x].context);
        }
    }
    at_work = nullptr;
    for (const auto &[one, other] : races)
        said += "race " + apart(one, other) + "\n";
    return said.c_str();
}

// ThreadSanitizer's calls.
#define SEEN(size)                                                                                           \
    extern "C" void __tsan_read##size(void *at) { see(at, size, false, __builtin_return_address(0)); }       \
    extern "C" void __tsan_write##size(void *at) { see(at, size, true, __builtin_return_address(0)); }       \
    extern "C" void __tsan_unaligned_read##size(void *at) {                                                  \
        see(at, size, false, __builtin_return_address(0));                                                   \
    }                                                                                                        \
    extern "C" void __tsan_unaligned_write##size(void *at) {                                                 \
        see(at, size, true, __builtin_return_address(0));                                                    \
    }
SEEN(1)
SEEN(2)
SEEN(4)
SEEN(8)
SEEN(16)
extern "C" void __tsan_read_range(void *at, size_t size) {
    see(at, size, false, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void *at, size_t size) {
    see(at, size, true, __builtin_return_address(0));
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void *) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void *, void *) {}
extern "C" void __tsan_vptr_read(void *) {}
extern "C" void *__tsan_memcpy(void *to, const void *from, size_t size) {
    see(from, size, false, __builtin_return_address(0));
    see(to, size, true, __builtin_return_address(0));
    return std::memcpy(to, from, size);
}
extern "C" void *__tsan_memset(void *to, int value, size_t size) {
    see(to, size, true, __builtin_return_address(0));
    return std::memset(to, value, size);
}
extern "C" void *__tsan_memmove(void *to, const void *from, size_t size) {
    see(from, size, false, __builtin_return_address(0));
    see(to, size, true, __builtin_return_address(0));
    return std::memmove(to, from, size);
}
