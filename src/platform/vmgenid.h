/*
 * The virtual machine generation ID (Microsoft, "Virtual Machine Generation ID", 2012): 16 random
 * bytes that change when the machine goes back in time or becomes two, after a restore or a clone,
 * so that the guest does not use its random numbers twice.
 */
#ifndef MULL_PLATFORM_VMGENID_H
#define MULL_PLATFORM_VMGENID_H

#include "platform/acpi_pm.h"
#include "platform/device.h"

/* Where the bytes are: a page of MMIO that only reads. The DSDT says so. */
#define MULL_VMGENID_BASE 0xfed4f000ull
#define MULL_VMGENID_SIZE 0x1000u
/* The general-purpose event that tells of a change. */
#define MULL_VMGENID_EVENT 8u

struct mull_vmgenid;

/** Create it, with a new ID. @param pm  outlives it. The device is owned by the caller. */
int mull_vmgenid_create(const struct mull_device_env *env, struct mull_acpi_pm *pm,
                        struct mull_vmgenid **out, struct mull_error *err);
struct mull_device *mull_vmgenid_device(struct mull_vmgenid *g);

/** Make a new ID and tell the guest: the machine is another now. Loading a state does it by itself.
 *  Any thread. */
void mull_vmgenid_renew(struct mull_vmgenid *g);

#endif
