// The device's kernels on the CPU: what runs here is their very text, by the threads of warp.hpp.
#define __global__
#define __launch_bounds__(threads)
#define __grid_constant__

#include "warp.hpp"

#include "kernels.cu"

#include <cstring>

extern "C" int emulator_task_size() { return sizeof(Task); }

// Runs a kernel; returns what `run_warps` does, or null for no kernel of that name. lot: who runs when.
extern "C" const char *emulate(const char *name, int blocks, unsigned lot, const void *given) {
    const Task &task = *static_cast<const Task *>(given);
    const struct {
        const char *name;
        void (*kernel)(const Task);
    } kernels[] = {{"prepare", prepare},
                   {"forward", forward},
                   {"restore", restore},
                   {"differentiate", differentiate},
                   {"points", points}};
    for (const auto &each : kernels)
        if (!std::strcmp(each.name, name))
            return run_warps(blocks, lot, [&] { each.kernel(task); });
    return nullptr;
}
