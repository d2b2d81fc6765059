// Trains one module and its head on the rows of one task: all steps in one call, without Python in between.
#include "backward.hpp"

struct Task {
    int64_t dim, hidden, squeezed, classes, flow, kind;  // classes: rows of the head
    float* parameters;                                   // flat, in the order of luca/parameters.py; changed in place
    const float* features;                               // [rows * views, dim]
    const int64_t *index, *targets;                      // of all steps, one after the other
    const int64_t* sizes;                                // rows a step, [steps]
    const double* lr;                                    // [steps]
    int64_t steps;
    double l1, decay, momentum;
    double* losses;  // before each step, [steps]
};

static void gather(Model& m, const Task& task, const int64_t* index, long rows) {
    for (long b = 0; b < rows; b++)
        std::memcpy(m.x.row(b), task.features + index[b] * task.dim, task.dim * sizeof(float));
}

template <Kind KIND>
static void fit(Model& m, const Task& task) {
    const int64_t *index = task.index, *targets = task.targets;
    double power1 = 1, power2 = 1;
    for (long step = 0; step < task.steps; step++) {
        long rows = task.sizes[step];
        Optimizer<KIND> optimizer{(float)task.lr[step], (float)task.l1, (float)task.decay, (float)task.momentum};
        power1 *= 0.9, power2 *= 0.999;
        optimizer.correction = 1 - power1, optimizer.scale = std::sqrt(1 - power2);
        gather(m, task, index, rows);
        module_forward(m, rows);
        head_forward(m, rows);
        double loss = cross_entropy(m, targets, rows) / rows;
        head_backward(m, optimizer, rows);
        module_backward(m, optimizer, rows);
        task.losses[step] = loss + task.l1 * optimizer.size;
        index += rows, targets += rows;
    }
}

// 0, or 1 if there is not enough memory.
extern "C" int tosca_fit(const Task* task) {
    long batch = 1;
    for (long i = 0; i < task->steps; i++) batch = task->sizes[i] > batch ? task->sizes[i] : batch;
    Model m(task->dim, task->hidden, task->squeezed, task->classes, batch, (Flow)task->flow);
    if (!m.allocate(task->kind != SGD))
        return 1;
    m.copy(task->parameters, true);
    switch (task->kind) {
        case SGD: fit<SGD>(m, *task); break;
        case ADAM: fit<ADAM>(m, *task); break;
        default: fit<ADAMW>(m, *task);
    }
    m.copy(task->parameters, false);
    return 0;
}
