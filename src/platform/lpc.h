/*
 * The ISA bridge of an ICH9 (its LPC function): what firmware programs there, and the routing of
 * PCI's interrupt lines to the 8259As. Knows where ISA lines lead, not what is behind them.
 */
#ifndef MULL_PLATFORM_LPC_H
#define MULL_PLATFORM_LPC_H

#include "platform/device.h"
#include "platform/irq.h"
#include "platform/pci.h"

struct mull_lpc;

struct mull_lpc_config {
    struct mull_memory *memory;
    struct mull_irq isa[16]; /* lines to which PCI interrupts can be routed */
};

/** Create it in slot 31. The device is owned by the caller. */
int mull_lpc_create(const struct mull_lpc_config *config, struct mull_pci_bus *bus,
                    struct mull_lpc **out, struct mull_error *err);
struct mull_device *mull_lpc_device(struct mull_lpc *lpc);

/** PCI line @line (0..3) is now @level. Any thread. */
void mull_lpc_set(struct mull_lpc *lpc, unsigned line, bool level);

#endif
