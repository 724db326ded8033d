/*
 * Interrupt wires: how a device asserts a line or sends a message without knowing which controller
 * is at the other end.
 */
#ifndef MULL_PLATFORM_IRQ_H
#define MULL_PLATFORM_IRQ_H

#include <stdbool.h>
#include <stdint.h>

/** One line into an interrupt controller. Level semantics: the device says what the line is now.
 *  Plain data, copied freely. A zeroed one is not connected. */
struct mull_irq {
    void (*set)(void *opaque, unsigned line, bool level);
    void *opaque;
    unsigned line;
};

/** Set a line; any thread. Not connected: nothing happens. */
static inline void mull_irq_set(const struct mull_irq *irq, bool level)
{
    if (irq->set)
        irq->set(irq->opaque, irq->line, level);
}

/** Where message-signalled interrupts go. */
struct mull_msi_sink {
    void (*send)(void *opaque, uint64_t address, uint32_t data);
    void *opaque;
};

#endif
