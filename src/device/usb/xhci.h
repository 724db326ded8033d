/*
 * A USB host controller (xHCI 1.2) with HID devices plugged into its root ports.
 */
#ifndef MULL_DEVICE_USB_XHCI_H
#define MULL_DEVICE_USB_XHCI_H

#include "device/input.h"
#include "device/usb/hid.h"
#include "platform/device.h"
#include "platform/pci.h"

#define MULL_XHCI_PORTS 4u /* for devices */

struct mull_xhci_config {
    const char *name;
    enum mull_hid_kind port[MULL_XHCI_PORTS]; /* what is plugged in */
};

/** Create it and let its devices listen to @input. The device is owned by the caller and must
 * outlive what @input does. */
int mull_xhci_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                     const struct mull_xhci_config *cfg, struct mull_input *input,
                     struct mull_device **out, struct mull_error *err);

#endif
