// What a GPU starts: the kernels of engines/lanes, a group of GROUP threads for each instance.
//
// A block is one warp, whose LANES instances lie side by side in its part of the memory at work. Blocks take
// packs of LANES instances in turn until none is left. Large batches are done fastest with a thread for each
// instance, which leaves nobody idle; small ones with more, which leaves no multiprocessor idle. Of the
// forward pass:
//
// 1. `prepare`: the clock and the counters; what the batch shares.
// 2. `forward`, FIRST: the first pass over all instances; who is misled or left goes to a list.
// 3. FIRST_AGAIN: the first pass anew over those misled, who may then be left.
// 4. SECOND: the second pass over those left.
//
// Nothing here waits for the host: lists and their lengths stay on the device.
#include "kernels/differentiating.hpp"
#include "kernels/solving.hpp"

using namespace cvxfold;

constexpr int SLOTS = 256;

struct Counters {
    int64_t start; // when the pass began, in nanoseconds
    int32_t misled, left, bad, factored;
};

// What every kernel is given. Python has the same record.
struct Task {
    Shape shape;
    Layout layout;
    Settings settings;
    Call call;
    BackwardCall backward;
    double *work, *common, *x, *y, *s; // memory at work, of all blocks; points, for `points`
    Counters *counters;
    int32_t *misled, *left; // lists (batch)
    char *open;             // (batch)
    int32_t packs_at_work;  // of a block
    int32_t stage;          // of `forward`
    int64_t slots[SLOTS];   // addresses
};

// The arrays of addresses of a call are handed over as places in the task's slots.
template <typename T> inline T *in_slots(const Task &t, T *place) {
    return reinterpret_cast<T *>(const_cast<int64_t *>(t.slots) + reinterpret_cast<int64_t>(place));
}

inline Call call_of(const Task &t) {
    Call call = t.call;
    call.parameters = in_slots(t, call.parameters);
    call.strides = in_slots(t, call.strides);
    call.outputs = in_slots(t, call.outputs);
    return call;
}

inline BackwardCall backward_of(const Task &t) {
    BackwardCall call = t.backward;
    call.output_gradients = in_slots(t, call.output_gradients);
    call.gradients = in_slots(t, call.gradients);
    return call;
}

struct DeviceClock {
    const Counters *counters;
    double seconds;

    static int64_t now() {
        int64_t nanoseconds = 0;
#ifdef __CUDACC_RTC__
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(nanoseconds));
#endif
        return nanoseconds;
    }

    bool operator()() const { return seconds < 0 || agreed((now() - counters->start) * 1e-9 < seconds); }
};

inline int lane() { return threadIdx.x % LANES; }

inline Pack *of_thread(double *memory) { return reinterpret_cast<Pack *>(memory + lane()); }

// A thread's workspace. What the batch shares is in its place; a factor of the splitting of one's own is
// behind it.
struct Place {
    Workspace w;
    Factor own_splitting;

    explicit Place(const Task &t, bool shared) {
        Pack *own = of_thread(t.work + blockIdx.x * static_cast<size_t>(t.packs_at_work) * LANES);
        const size_t used = lay_out(t.shape, t.layout.entries, shared, w, own);
        own_splitting = w.splitting;
        if (shared) {
            Common(t.shape, of_thread(t.common)).serve(w);
            own_splitting = Carver(own + used).factor(t.shape);
        }
    }
};

inline Solving<DeviceClock> solving_of(const Task &t, const Call &call) {
    return {t.shape, t.layout, t.settings, call, DeviceClock{t.counters, t.settings.seconds}};
}

inline void count(int32_t *counter, int by) {
    if (by && number_in_group() == 0)
        atomicAdd(counter, by);
}

// Calls work(i) for those of `number` instances that are this thread's.
template <typename Work> inline void each_instance(int number, Work work) {
    for (int at = blockIdx.x * LANES; at < number; at += gridDim.x * LANES)
        if (at + lane() < number)
            work(at + lane());
}

// Puts an instance on the list that `open` names.
inline void list(const Task &t, int instance) {
    if (number_in_group() != 0)
        return;
    if (t.open[instance] == MISLED)
        t.misled[atomicAdd(&t.counters->misled, 1)] = instance;
    else if (t.open[instance] == LEFT)
        t.left[atomicAdd(&t.counters->left, 1)] = instance;
}

extern "C" __global__ void __launch_bounds__(WARP) prepare(const __grid_constant__ Task t) {
    const Call call = call_of(t);
    const Solving<DeviceClock> solving = solving_of(t, call);
    if (threadIdx.x == 0) {
        *t.counters = Counters{};
        t.counters->start = DeviceClock::now();
    }
    __syncwarp();
    if (!t.call.shared)
        return;
    Place place(t, t.call.shared != 0);
    const Common common(t.shape, of_thread(t.common));
    solving.prepare_common(place.w);
    if (threadIdx.x == 0)
        solving.write_head(common);
    bool cold = !t.settings.refine;
    for (int instance = threadIdx.x; instance < t.call.batch; instance += WARP)
        cold |= !solving.has_start(instance);
    if (__any_sync(0xffffffff, cold)) {
        solving.factor_common(common, place.w);
        if (threadIdx.x == 0)
            t.counters->factored = 1;
    }
}

// What `forward` does: its passes are one kernel, as they call the same, which so is compiled once.
enum Stage { FIRST, FIRST_AGAIN, SECOND };

extern "C" __global__ void __launch_bounds__(WARP) forward(const __grid_constant__ Task t) {
    const bool shared = t.call.shared != 0, factored = shared && t.counters->factored;
    const int number = t.stage == FIRST         ? t.call.batch
                       : t.stage == FIRST_AGAIN ? t.counters->misled
                                                : t.counters->left;
    if (number == 0)
        return;
    const Call call = call_of(t);
    const Solving<DeviceClock> solving = solving_of(t, call);
    Place place(t, shared);
    if (t.stage == SECOND || (t.stage == FIRST_AGAIN && shared && !factored))
        place.w.splitting = place.own_splitting; // what is shared must not be written
    each_instance(number, [&](int k) {
        if (t.stage == SECOND) {
            count(&t.counters->bad, solving.second(place.w, Chosen(t.left, number, k)));
            return;
        }
        const bool anew = t.stage == FIRST_AGAIN;
        const int instance = anew ? t.misled[k] : k;
        count(&t.counters->bad,
              anew ? solving.first_again(place.w, Chosen(t.misled, number, k), factored, t.open)
                   : solving.first(place.w, instance, factored, t.open));
        list(t, instance);
    });
}

// The backward pass, and `points`: what the batch shares, from the state.
extern "C" __global__ void __launch_bounds__(WARP) restore(const __grid_constant__ Task t) {
    if (threadIdx.x == 0)
        *t.counters = Counters{};
    const double *head = t.backward.state;
    if (t.backward.shared)
        Common(t.shape, of_thread(t.common)).each(t.shape, [&](Pack &number) {
            if (number_in_group() == 0)
                number = *head;
            head++;
        });
}

extern "C" __global__ void __launch_bounds__(WARP) differentiate(const __grid_constant__ Task t) {
    const BackwardCall call = backward_of(t);
    const Differentiating work(t.shape, t.layout, call);
    Place place(t, t.backward.shared != 0);
    each_instance(t.backward.batch,
                  [&](int instance) { count(&t.counters->bad, work.differentiate(place.w, instance)); });
}

extern "C" __global__ void __launch_bounds__(WARP) points(const __grid_constant__ Task t) {
    const Shape &S = t.shape;
    const bool shared = t.backward.shared != 0;
    const States states(S, shared);
    Place place(t, shared);
    const Pack *x = place.w.own, *y = x + S.n, *s = y + S.m;
    each_instance(t.backward.batch, [&](int instance) {
        double *state = const_cast<double *>(t.backward.state);
        restore_points(S, place.w, Block(S, shared, states.at(state, instance)));
        const size_t of_x = static_cast<size_t>(instance) * S.n, of_y = static_cast<size_t>(instance) * S.m;
        each(S.n, [&](int i) { t.x[of_x + i] = x[i].number; });
        each(S.m, [&](int j) {
            t.y[of_y + j] = y[j].number;
            t.s[of_y + j] = s[j].number;
        });
    });
}
