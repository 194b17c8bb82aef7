// The C interface: everything that Python calls.
#include "api.hpp"
#include "batch.hpp"

using namespace cvxfold;

CVXFOLD_API int cvxfold_figures(int backward) {
    return backward ? int(BackwardFigure::COUNT) : int(ForwardFigure::COUNT);
}

// Null where memory does not suffice. Arrays of the description are copied, those of the layout must live on.
CVXFOLD_API void *cvxfold_new(const Description *description, const Layout *layout) {
    try {
        return new Batch(*description, *layout);
    } catch (...) {
        return nullptr;
    }
}

CVXFOLD_API void cvxfold_free(void *batch) { delete static_cast<Batch *>(batch); }

// Entries of L, and multiplications of a factorization.
CVXFOLD_API void cvxfold_counts(const void *batch, int64_t *entries, int64_t *multiplications) {
    const Analysis &analysis = static_cast<const Batch *>(batch)->analysis();
    *entries = analysis.shape.nnz_L;
    *multiplications = analysis.multiplications;
}

// The structure as kernels have it; its arrays live as long as the batch.
CVXFOLD_API void cvxfold_shape(const void *batch, Shape *shape) {
    *shape = static_cast<const Batch *>(batch)->analysis().shape;
}

CVXFOLD_API int64_t cvxfold_state_size(const void *batch, int instances, int shared) {
    return static_cast<int64_t>(static_cast<const Batch *>(batch)->state_size(instances, shared != 0));
}

CVXFOLD_API int64_t cvxfold_bytes_at_work(const void *batch, int shared) {
    return static_cast<int64_t>(static_cast<const Batch *>(batch)->bytes_at_work(shared != 0));
}

// How many instances are not solved; -1 where memory does not suffice. Behind the call's record follow the
// addresses of its parameters, their strides, and the addresses of its outputs.
CVXFOLD_API int cvxfold_forward(void *batch, const Settings *settings, const Call *call) {
    try {
        Batch &own = *static_cast<Batch *>(batch);
        const auto after = reinterpret_cast<const int64_t *>(call + 1);
        const int count = own.layout().parameters;
        Call whole = *call;
        whole.parameters = reinterpret_cast<const double *const *>(after);
        whole.strides = after + count;
        whole.outputs = reinterpret_cast<double *const *>(after + 2 * count);
        return own.forward(*settings, whole);
    } catch (...) {
        return -1;
    }
}

// Fills x (B, n), y and s (B, m); -1 where memory does not suffice.
CVXFOLD_API int cvxfold_points(void *batch, int instances, int shared, const double *state, double *x,
                               double *y, double *s) {
    try {
        static_cast<Batch *>(batch)->points(instances, shared != 0, state, x, y, s);
        return 0;
    } catch (...) {
        return -1;
    }
}

// How many gradients somebody should look at; -1 where memory does not suffice. Behind the call's record
// follow the addresses of the outputs' gradients and of those to be filled.
CVXFOLD_API int cvxfold_backward(void *batch, const BackwardCall *call) {
    try {
        Batch &own = *static_cast<Batch *>(batch);
        const auto after = reinterpret_cast<const int64_t *>(call + 1);
        BackwardCall whole = *call;
        whole.output_gradients = reinterpret_cast<const double *const *>(after);
        whole.gradients = reinterpret_cast<double *const *>(after + own.layout().outputs);
        return own.backward(whole);
    } catch (...) {
        return -1;
    }
}
