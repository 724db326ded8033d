/*
 * A machine as other formats describe it (OVF, VMX, libvirt's domain XML), to and from Mullion's
 * description. Each reader fills in a `struct mull_appliance`, whose disks still have the names of
 * the package they came in; each writer says in a report what it could not carry over. Opens no
 * disk: package.h does.
 */
#ifndef MULL_MACHINE_APPLIANCE_H
#define MULL_MACHINE_APPLIANCE_H

#include "base/error.h"
#include "image/ovf/ovf.h"
#include "image/ovf/vmx.h"
#include "machine/config.h"

/* ---- What could not be carried over ---- */

enum mull_note_kind {
    MULL_NOTE_LOST,    /* it is not in the result */
    MULL_NOTE_CHANGED, /* something else takes its place */
    MULL_NOTE_KEPT,    /* the description keeps it, for export; a machine does not use it */
};

struct mull_note {
    enum mull_note_kind kind;
    char *item, *text;
};

#define MULL_NOTES_MAX 512u

struct mull_report {
    unsigned count;
    struct mull_note *note;
    bool failed; /* a note had no memory */
};

/** "lost", "changed", "kept" */
const char *mull_note_name(enum mull_note_kind kind);
void mull_report_add(struct mull_report *report, enum mull_note_kind kind, const char *item,
                     const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void mull_report_free(struct mull_report *report);

/* ---- A machine and the files of its package ---- */

struct mull_appliance_file {
    char *name;         /* in the package, as written; NULL: none */
    bool gzip;          /* packed whole */
    uint64_t chunk;     /* bytes of each part, 0: in one */
    uint64_t capacity;  /* disk without a file: its bytes */
    uint64_t size;      /* of the file, 0: not said */
    const char *format; /* image format, NULL: detect; a constant */
};

struct mull_appliance {
    struct mull_machine_config config; /* disks' and CD-ROMs' paths are NULL */
    struct mull_appliance_file disk[MULL_CONFIG_DISKS], cdrom[MULL_CONFIG_CDROMS], nvram;
    unsigned licence_count;
    char **licence; /* to be shown and accepted */
    struct mull_report report;
};

/** An empty one. @return 0 or -ENOMEM */
int mull_appliance_init(struct mull_appliance *appliance);
void mull_appliance_free(struct mull_appliance *appliance);

/** From a name of any kind one that a machine may have. @return malloc'ed, or NULL: no memory */
char *mull_machine_name(const char *text);

/* ---- Readers: @out is to be freed also after an error ---- */

/** @param system  which virtual system of the descriptor */
int mull_appliance_from_ovf(const struct mull_ovf *ovf, uint32_t system, struct mull_appliance *out,
                            struct mull_error *err);
/** Marks in @vmx what was used. */
int mull_appliance_from_vmx(struct mull_vmx *vmx, const char *what, struct mull_appliance *out,
                            struct mull_error *err);
int mull_appliance_from_libvirt(const char *what, const void *text, size_t length,
                                struct mull_appliance *out, struct mull_error *err);

/** Set a property that the appliance asks for. -ENOENT: there is none of that key. */
int mull_appliance_set_property(struct mull_appliance *appliance, const char *key,
                                const char *value, struct mull_error *err);
/** Properties that have no value and no default, as one line; "" if none. */
void mull_appliance_open_properties(const struct mull_appliance *appliance, char *out, size_t room);
/** A CD-ROM's image in the machine's folder, with that document. */
#define MULL_ENVIRONMENT_DISC "ovf-env.iso"
/** Whether the appliance wants its properties on a disc (transport "iso"; DSP0243, 11.2). */
bool mull_appliance_wants_disc(const struct mull_machine_config *config);
/** The OVF environment document of DSP0243, clause 11, or NULL: no memory. */
char *mull_appliance_environment(const struct mull_machine_config *config);

/* ---- Writers ---- */

/** A disk's file as a package names it. */
struct mull_appliance_disk {
    const char *name;
    uint64_t size;      /* of the file */
    uint64_t capacity;  /* of the disk */
    uint64_t populated; /* bytes in use, 0: not known */
    const char *format; /* "vmdk", "qcow2", ... */
};

struct mull_appliance_write {
    const struct mull_machine_config *config;
    const struct mull_appliance_disk *disk;  /* one for each of config's */
    const struct mull_appliance_disk *cdrom; /* the same; name NULL: no medium */
    const char *nvram;                       /* name in the package, or NULL */
    unsigned ovf_version;                    /* 2: OVF 2; else 1.1 */
    struct mull_report *report;
};

int mull_appliance_to_vmx(const struct mull_appliance_write *w, struct mull_vmx *out,
                          struct mull_error *err);
/** @param out  the document, malloc'ed */
int mull_appliance_to_ovf(const struct mull_appliance_write *w, char **out, struct mull_error *err);
int mull_appliance_to_libvirt(const struct mull_appliance_write *w, char **out,
                              struct mull_error *err);

#endif
