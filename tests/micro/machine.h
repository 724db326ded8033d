/*
 * The smallest machine around an engine: RAM, a log on I/O ports, an interrupt line without a
 * controller, and whatever else the micro-guests ask for through ports. An engine without local
 * APICs gets the platform's.
 */
#ifndef TESTS_MICRO_MACHINE_H
#define TESTS_MICRO_MACHINE_H

#include <pthread.h>

#include "engine/engine.h"
#include "micro.h"
#include "platform/lapic.h"

#define MICRO_CPUS 2
#define MICRO_LOG_MAX 4096

struct micro_machine {
    const struct micro_guest *guest;
    const struct mull_engine *engine;
    const struct mull_cpuid *cpuid;
    struct mull_memory *memory;
    struct mull_clock *clock;
    struct mull_log log_handle;
    struct mull_engine_bus bus;
    struct mull_vm *vm;
    struct mull_vcpu *vcpu[MICRO_CPUS];
    struct mull_exit exit[MICRO_CPUS];
    pthread_t thread[MICRO_CPUS];
    unsigned cpus;
    /* Where it began, and where MICRO_PORT_MOVE takes it and back (NULL: does nothing). */
    const struct mull_engine *first, *other;

    pthread_mutex_t lock;
    uint64_t log[MICRO_LOG_MAX];
    unsigned log_count;
    uint32_t log_low[MICRO_CPUS];
    uint8_t device[2][4096]; /* ports, MMIO */
    unsigned laters;
    pthread_t later[64];
    bool done, move;
    bool restless; /* also stopped and moved again and again, wherever it is */
    unsigned moves;

    _Atomic int irq;        /* the vector on the line that an 8259 would drive, -1: none */
    struct mull_loop *loop; /* for the local APICs' timers, in a thread of its own */
    pthread_t loop_thread;
    struct mull_lapics *lapics; /* NULL: the engine has its own */
    struct micro_frame *frame;  /* frame.h; the same */
    struct micro_pc *pc;        /* pc.h; NULL: the guest does not ask for it */
    uint64_t eoi_vectors[4];
    uint64_t bus_msr;
    char failure[600];
};

/** What is left at the end, for comparing. */
struct micro_result {
    enum mull_exit_reason reason;
    char failure[600];
    unsigned moves;
    unsigned log_count;
    uint64_t log[MICRO_LOG_MAX];
    struct mull_cpu_state state[MICRO_CPUS];
    uint8_t *ram;
};

/**
 * Run a guest to its end.
 *
 * @param other   at each MICRO_PORT_MOVE the guest goes through a save stream to this engine, or
 *                back to the first; the same engine is allowed. NULL: MICRO_PORT_MOVE does nothing
 * @param restless  also stop it at any moment, again and again, and move it
 * @param result  result->failure is empty if the machine could be made and came to an end;
 *                result->ram is the caller's to free
 */
void micro_run(const struct micro_guest *guest, const struct mull_engine *engine,
               const struct mull_engine *other, bool restless, const struct mull_cpuid *cpuid,
               struct micro_result *result);

#endif
