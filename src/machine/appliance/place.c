/*
 * Where drives sit in VMware's world, which OVF shares: SCSI, SATA, NVMe and IDE controllers with
 * units. What has no such place (virtio, USB) or would share one is moved, and reported.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "machine/appliance/internal.h"

const char *const place_names[4] = {"scsi", "sata", "nvme", "ide"};

static const struct {
    unsigned controllers, units;
} families[] = {{4, 16}, {4, 30}, {4, 64}, {2, 2}};

#define UNITS_MAX 64u
#define SCSI_OWN_UNIT 7u /* the controller's own address */

struct places {
    bool taken[4][4][UNITS_MAX];
    const char *adapter[4]; /* of each SCSI controller, NULL: free */
};

static bool room(const struct places *p, const struct place *at)
{
    return at->controller < families[at->family].controllers &&
           at->unit < families[at->family].units &&
           !(at->family == PLACE_SCSI && at->unit == SCSI_OWN_UNIT) &&
           !p->taken[at->family][at->controller][at->unit] &&
           (at->family != PLACE_SCSI || !p->adapter[at->controller] ||
            !strcmp(p->adapter[at->controller], at->adapter));
}

/* The place wanted, or the next free one of the same kind. */
static int settle(struct places *p, int controller, int unit, struct place *at)
{
    if (controller >= 0 || unit >= 0) {
        at->controller = controller >= 0 ? (unsigned)controller : 0;
        at->unit = unit >= 0 ? (unsigned)unit : 0;
        if (room(p, at))
            goto take;
    }
    for (at->controller = 0; at->controller < families[at->family].controllers; at->controller++)
        for (at->unit = 0; at->unit < families[at->family].units; at->unit++)
            if (room(p, at))
                goto take;
    return -ENOSPC;
take:
    p->taken[at->family][at->controller][at->unit] = true;
    if (at->family == PLACE_SCSI)
        p->adapter[at->controller] = at->adapter;
    return 0;
}

static const char *known_adapter(const char *name)
{
    static const char *const known[] = {"lsilogic", "lsisas1068", "buslogic", "pvscsi"};
    for (unsigned i = 0; name && i < 4; i++)
        if (!strcmp(name, known[i]))
            return known[i];
    return NULL;
}

static void family_of(enum mull_bus bus, const char *adapter, struct mull_report *report,
                      const char *item, bool cdrom, struct place *out)
{
    const char *was = mull_bus_names[bus];
    *out = (struct place){.family = PLACE_SCSI, .adapter = "pvscsi"};
    switch (bus) {
    case MULL_BUS_SATA:
        out->family = PLACE_SATA;
        return;
    case MULL_BUS_NVME:
        out->family = PLACE_NVME;
        return;
    case MULL_BUS_IDE:
        out->family = PLACE_IDE;
        return;
    case MULL_BUS_PVSCSI:
        return;
    case MULL_BUS_SCSI:
        if (known_adapter(adapter)) {
            out->adapter = known_adapter(adapter);
            return;
        }
        was = adapter ? adapter : "virtio-scsi";
        break;
    case MULL_BUS_VIRTIO:
    case MULL_BUS_USB:
        break;
    }
    if (cdrom)
        out->family = PLACE_SATA;
    mull_report_add(report, MULL_NOTE_CHANGED, item, "%s becomes %s", was,
                    cdrom ? "sata" : "pvscsi");
}

static int place_one(struct places *p, const struct mull_appliance_write *w, const char *item,
                     enum mull_bus bus, const char *adapter, int controller, int unit, bool cdrom,
                     struct place *out, struct mull_error *err)
{
    family_of(bus, adapter, w->report, item, cdrom, out);
    if (settle(p, controller, unit, out))
        return mull_fail(err, ENOSPC, "%s: no place is left on a %s controller", item,
                         place_names[out->family]);
    if ((controller >= 0 && (unsigned)controller != out->controller) ||
        (unit >= 0 && (unsigned)unit != out->unit))
        mull_report_add(w->report, MULL_NOTE_CHANGED, item, "moves from %d:%d to %s%u:%u",
                        controller, unit, place_names[out->family], out->controller, out->unit);
    return 0;
}

int appliance_place(const struct mull_appliance_write *w, struct placement *out,
                    struct mull_error *err)
{
    const struct mull_machine_config *c = w->config;
    struct places p = {0};
    char item[32];
    int ret = 0;
    memset(out, 0, sizeof(*out));
    /* First those that say where they are. */
    for (int pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < c->disk_count && !ret; i++) {
            const struct mull_disk_config *d = &c->disk[i];
            snprintf(item, sizeof(item), "disk %u", i);
            if ((d->controller < 0 && d->unit < 0) == (pass == 1))
                ret = place_one(&p, w, item, d->bus, d->adapter, d->controller, d->unit, false,
                                &out->disk[i], err);
        }
        for (unsigned i = 0; i < c->cdrom_count && !ret; i++) {
            const struct mull_cdrom_config *d = &c->cdrom[i];
            snprintf(item, sizeof(item), "CD-ROM %u", i);
            if ((d->controller < 0 && d->unit < 0) == (pass == 1))
                ret = place_one(&p, w, item, d->bus, d->adapter, d->controller, d->unit, true,
                                &out->cdrom[i], err);
        }
    }
    return ret;
}
