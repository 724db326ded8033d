/*
 * Machines that come and go: importing what other programs have written (OVA, OVF, VMX, libvirt
 * XML, or a disk alone) as a folder with machine.json and its disks, and exporting such a machine.
 * A folder appears whole or not at all.
 */
#ifndef MULL_MACHINE_APPLIANCE_PACKAGE_H
#define MULL_MACHINE_APPLIANCE_PACKAGE_H

#include "base/log.h"
#include "image/ovf/manifest.h"
#include "machine/appliance/appliance.h"

/** How far it is: @what is a file's name. Non-zero: stop (-ECANCELED). */
typedef int (*mull_package_progress)(void *opaque, const char *what, uint64_t done, uint64_t total);

struct mull_pair {
    const char *key, *value;
};

#define MULL_IMPORT_PAIRS 64

struct mull_import {
    const char *source;        /* a file, a folder with one description in it, or a URL */
    const char *into;          /* folder of machines; made if it is missing */
    const char *name;          /* NULL: the source's */
    const char *disk_format;   /* NULL: qcow2 */
    const char *configuration; /* deployment option of an OVF; NULL: its default */
    const char *system;        /* id of one of several virtual systems; NULL: there is one */
    const char *ca_file;       /* authorities for signers and servers; NULL: the host's */
    bool in_place;             /* use the disks where they are */
    bool outside;              /* follow names that lead out of the package's folder */
    bool no_verify;            /* a wrong manifest or signature is only reported */
    bool require_signature;    /* by somebody trusted */
    bool accept_licences;
    unsigned property_count, network_count;
    struct mull_pair property[MULL_IMPORT_PAIRS];
    struct mull_pair network[MULL_IMPORT_PAIRS]; /* name -> "user", "none" or "tap=INTERFACE" */
    bool dry_run;                                /* only read and report */
    mull_package_progress progress;
    void *opaque;
    const struct mull_log *log;
    /* Results; to be freed with mull_import_free(). */
    char *config_path; /* of machine.json; with dry_run its text */
    bool verified;     /* every file's digest fits the manifest */
    bool has_signer;
    struct mull_signer signer;
    struct mull_appliance appliance; /* the machine, and the report */
};

/** -EACCES with licences in import->appliance: they must be accepted first. */
int mull_import(struct mull_import *import, struct mull_error *err);
void mull_import_free(struct mull_import *import);

struct mull_export {
    const struct mull_machine_config *config; /* its paths as they can be opened */
    const char *target;                       /* a file, or for ovf, vmx and libvirt a new folder */
    const char *place;       /* libvirt: the folder's name later on, "": names without a folder;
                                NULL: that of @target */
    const char *format;      /* "ova", "ovf", "vmx", "libvirt", or an image format's name */
    const char *disk_format; /* in the package; NULL: the format's own */
    int disk;                /* for image formats: which one; -1: the only one */
    unsigned ovf_version;    /* 2: OVF 2; else 1.1 */
    enum mull_digest digest; /* of the manifest */
    bool no_manifest;
    const char *key_file, *cert_file; /* sign the manifest; NULL: not */
    mull_package_progress progress;
    void *opaque;
    const struct mull_log *log;
    struct mull_report report; /* result; to be freed with mull_report_free() */
};

int mull_export(struct mull_export *export, struct mull_error *err);

#endif
