/*
 * The devices a person sees and touches: graphics adapter, keyboard, mouse. Knows which of them a
 * configuration asks for, not who looks.
 */
#include <string.h>

#include "device/display/vga.h"
#include "device/usb/xhci.h"
#include "machine/internal.h"

/* The option ROM that drives a graphics adapter for a BIOS. */
static void load_rom(struct mull_machine *m, const char *file, uint32_t *size)
{
    struct mull_error none;

    if (m->firmware && mull_firmware_rom(file, &m->vga_rom, size, &none)) {
        mull_log(m->log, MULL_LOG_WARN, "firmware: %s; the BIOS has no screen", none.message);
        m->vga_rom = NULL;
    }
}

static int add_vga(struct mull_machine *m, const struct mull_device_env *env, bool inlaid,
                   struct mull_vga **vga, struct mull_error *err)
{
    struct mull_vga_config cfg = {.inlaid = inlaid};

    if (!inlaid)
        load_rom(m, "vgabios-stdvga.bin", &cfg.rom_size);
    cfg.rom = m->vga_rom;
    int ret = mull_vga_create(env, mull_platform_pci(m->platform), &cfg, vga, err);
    if (ret)
        return ret;
    machine_add_device(m, mull_vga_device(*vga));
    m->screen = mull_vga_screen(*vga);
    return 0;
}

static int add_gpu(struct mull_machine *m, const struct mull_device_env *env,
                   struct mull_error *err)
{
    struct mull_virtio_gpu_config cfg = {.name = "virtio-gpu.0", .devfn = -1};
    struct mull_device *device;
    int ret = add_vga(m, env, true, &cfg.vga, err);

    if (ret)
        return ret;
    load_rom(m, "vgabios-virtio.bin", &cfg.rom_size);
    cfg.rom = m->vga_rom;
    ret = mull_virtio_gpu_create(env, mull_platform_pci(m->platform), &cfg, &device, err);
    if (ret)
        return ret;
    machine_add_device(m, device);
    m->screen = mull_virtio_gpu_screen(device);
    return 0;
}

bool machine_wants_screen(const struct mull_machine *m, const struct mull_machine_config *config)
{
    return m->firmware || config->display != MULL_DISPLAY_NONE;
}

/* Guests reset a PC by its keyboard controller, whether there is a keyboard or not. */
static int add_i8042(struct mull_machine *m, const struct mull_device_env *env, bool bare,
                     struct mull_error *err)
{
    const struct mull_i8042_config cfg = {
        .keyboard = mull_platform_irq(m->platform, 1),
        .mouse = mull_platform_irq(m->platform, 12),
        .bare = bare,
        .reset = machine_event_reset,
        .opaque = m,
    };
    struct mull_i8042 *controller;
    int ret = mull_i8042_create(env, &cfg, &controller, err);

    if (ret)
        return ret;
    machine_add_device(m, mull_i8042_device(controller));
    m->input.ps2 = bare ? NULL : controller;
    return 0;
}

int machine_screen_devices(struct mull_machine *m, const struct mull_device_env *env,
                           const struct mull_machine_config *config, struct mull_error *err)
{
    struct mull_vga *vga;
    bool gpu = config->video.model && !strcmp(config->video.model, "virtio");
    int ret = 0;

    if (!machine_wants_screen(m, config))
        return add_i8042(m, env, true, err);
    ret = gpu ? add_gpu(m, env, err) : add_vga(m, env, false, &vga, err);
    return ret ? ret : add_i8042(m, env, false, err);
}

int machine_usb_devices(struct mull_machine *m, const struct mull_device_env *env,
                        const struct mull_machine_config *config, struct mull_error *err)
{
    struct mull_xhci_config cfg = {.name = "xhci"};
    struct mull_device *device;
    unsigned port = 0;

    if (!config->usb && !config->tablet && !config->keyboard)
        return 0;
    if (config->tablet)
        cfg.port[port++] = MULL_HID_TABLET;
    if (config->keyboard)
        cfg.port[port++] = MULL_HID_KEYBOARD;
    int ret = mull_xhci_create(env, mull_platform_pci(m->platform), &cfg, &m->input, &device, err);
    if (!ret)
        machine_add_device(m, device);
    return ret;
}
