/*
 * QEMU's firmware configuration device (docs/specs/fw_cfg.rst there): how firmware learns of
 * memory, CPUs, tables and boot order. Items are bytes under a key; files are items with a name.
 */
#ifndef MULL_DEVICE_LEGACY_FW_CFG_H
#define MULL_DEVICE_LEGACY_FW_CFG_H

#include "platform/device.h"

/* Keys of items that are not files. */
#define MULL_FW_CFG_UUID 0x02u
#define MULL_FW_CFG_RAM_SIZE 0x03u
#define MULL_FW_CFG_NOGRAPHIC 0x04u
#define MULL_FW_CFG_CPUS 0x05u
#define MULL_FW_CFG_BOOT_MENU 0x0eu
#define MULL_FW_CFG_MAX_CPUS 0x0fu
#define MULL_FW_CFG_IRQ0_OVERRIDE 0x8002u

struct mull_fw_cfg;

/** Create it at ports 510h to 51Bh. @param out  the device is owned by the caller */
int mull_fw_cfg_create(const struct mull_device_env *env, struct mull_fw_cfg **out,
                       struct mull_error *err);
struct mull_device *mull_fw_cfg_device(struct mull_fw_cfg *f);

/** Add an item; @data is copied. Before the machine runs. @return 0, -EINVAL, -ENOSPC, -ENOMEM */
int mull_fw_cfg_add(struct mull_fw_cfg *f, uint16_t key, const void *data, uint32_t size,
                    struct mull_error *err);

/** Change an item of the same size. While no vCPU runs. */
void mull_fw_cfg_set(struct mull_fw_cfg *f, uint16_t key, const void *data, uint32_t size);

/** Add a file (a name of at most 55 characters, not there yet); @data is copied. Before the machine
 *  runs.
 *  @param select  may be NULL; called when the guest begins to read the file, from a vCPU's thread:
 *                 may change its bytes (the size stays) */
int mull_fw_cfg_add_file(struct mull_fw_cfg *f, const char *name, const void *data, uint32_t size,
                         void (*select)(void *opaque, uint8_t *data, uint32_t size), void *opaque,
                         struct mull_error *err);

#endif
