/*
 * The chips of pc.h and their wires. As in a PC, IRQ 0 is pin 2 of the I/O APIC.
 */
#include "pc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/ioapic.h"
#include "platform/pic.h"
#include "platform/pit.h"
#include "platform/ports.h"

#define IOAPIC_BASE 0xfec00000u

struct micro_pc {
    struct mull_pic *pic;
    struct mull_ioapic *ioapic;
    struct mull_pit *pit;
    struct mull_ports *ports;
    struct mull_device *device[4];
};

/* The 8259A's output is LINT0 of CPU 0. */
static void pic_output(void *opaque, bool level)
{
    struct micro_machine *m = opaque;

    if (m->lapics)
        mull_lapics_lint0(m->lapics, level);
    if (m->vcpu[0])
        m->engine->vcpu_signal(m->vcpu[0], MULL_SIGNAL_IRQ, 0);
}

static void send_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct micro_machine *m = opaque;

    if (m->lapics)
        mull_lapics_msi(m->lapics, address, data);
    else if (m->vm && m->engine->msi)
        m->engine->msi(m->vm, address, data);
}

static void level_vectors(void *opaque, const uint64_t vectors[4])
{
    struct micro_machine *m = opaque;

    memcpy(m->eoi_vectors, vectors, sizeof(m->eoi_vectors));
    if (m->vm && m->engine->eoi_vectors)
        m->engine->eoi_vectors(m->vm, m->eoi_vectors);
}

void micro_pc_line(struct micro_machine *m, unsigned value)
{
    unsigned line = value & 31;
    bool level = value & 0x80;

    mull_pic_set(m->pc->pic, line, level);
    mull_ioapic_set(m->pc->ioapic, line == 0 ? 2 : line, level);
}

static void pit_line(void *opaque, unsigned line, bool level)
{
    micro_pc_line(opaque, line | (level ? 0x80u : 0));
}

int micro_pc_create(struct micro_machine *m, struct mull_error *err)
{
    const struct mull_device_env env = {.memory = m->memory, .loop = m->loop, .clock = m->clock};
    const struct mull_pic_config pic = {.memory = m->memory, .opaque = m, .output = pic_output};
    const struct mull_ioapic_config ioapic = {.memory = m->memory,
                                              .base = IOAPIC_BASE,
                                              .msi = {.send = send_msi, .opaque = m},
                                              .opaque = m,
                                              .level_vectors = level_vectors};
    const struct mull_irq line = {.set = pit_line, .opaque = m};
    const struct mull_ports_events none = {0};
    struct micro_pc *pc = calloc(1, sizeof(*pc));
    int r;

    if (!pc)
        abort();
    m->pc = pc;
    if ((r = mull_pic_create(&pic, &pc->pic, err)))
        return r;
    pc->device[0] = mull_pic_device(pc->pic);
    if ((r = mull_ioapic_create(&ioapic, &pc->ioapic, err)))
        return r;
    pc->device[1] = mull_ioapic_device(pc->ioapic);
    if ((r = mull_pit_create(&env, line, &pc->pit, err)))
        return r;
    pc->device[2] = mull_pit_device(pc->pit);
    if ((r = mull_ports_create(&env, &none, &pc->ports, err)))
        return r;
    pc->device[3] = mull_ports_device(pc->ports);
    return 0;
}

void micro_pc_destroy(struct micro_machine *m)
{
    for (unsigned i = 4; m->pc && i-- > 0;)
        if (m->pc->device[i])
            m->pc->device[i]->ops->destroy(m->pc->device[i]);
    free(m->pc);
    m->pc = NULL;
}

int micro_pc_pending(struct micro_machine *m)
{
    return mull_pic_pending(m->pc->pic);
}

int micro_pc_accept(struct micro_machine *m)
{
    return mull_pic_accept(m->pc->pic);
}

void micro_pc_eoi(struct micro_machine *m, uint8_t vector)
{
    mull_ioapic_eoi(m->pc->ioapic, vector);
}

int micro_pc_save(struct micro_machine *m, struct mull_state_writer *w, struct mull_error *err)
{
    int r = 0;

    for (unsigned i = 0; !r && i < 4; i++)
        r = mull_state_write(w, m->pc->device[i]->name, 0, m->pc->device[i]->ops->state,
                             m->pc->device[i]->object, err);
    return r;
}

int micro_pc_load(struct micro_machine *m, struct mull_state_reader *reader,
                  const struct mull_state_section *section, struct mull_error *err)
{
    for (unsigned i = 0; i < 4; i++)
        if (!strcmp(m->pc->device[i]->name, section->name))
            return mull_state_read(reader, m->pc->device[i]->ops->state, m->pc->device[i]->object,
                                   err);
    return mull_fail(err, EINVAL, "a section %s", section->name);
}

void micro_pc_resume(struct micro_machine *m)
{
    for (unsigned i = 0; i < 4; i++)
        if (m->pc->device[i]->ops->resume)
            m->pc->device[i]->ops->resume(m->pc->device[i]);
    pic_output(m, mull_pic_pending(m->pc->pic) >= 0);
}
