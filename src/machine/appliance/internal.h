/* What the readers and writers of src/machine/appliance/ share; no one else. */
#ifndef MULL_MACHINE_APPLIANCE_INTERNAL_H
#define MULL_MACHINE_APPLIANCE_INTERNAL_H

#include <jansson.h>

#include "machine/appliance/appliance.h"

/* ---- A new drive or card; NULL with @err filled in: there are too many ---- */

struct mull_disk_config *appliance_add_disk(struct mull_appliance *a, const char *what,
                                            struct mull_error *err);
struct mull_cdrom_config *appliance_add_cdrom(struct mull_appliance *a, const char *what,
                                              struct mull_error *err);
struct mull_network_config *appliance_add_network(struct mull_appliance *a, const char *what,
                                                  struct mull_error *err);
struct mull_console_config *appliance_add_console(struct mull_appliance *a);

/** A whole number up to @max, and nothing else. @p text may be NULL. */
bool appliance_number(const char *text, uint64_t max, uint64_t *out);

/** Replace an owned string. @p text NULL: none. @return 0 or -ENOMEM */
int appliance_set(char **field, const char *text);

/** The name of a socket or log of a stranger's machine: its last part, in the machine's folder. */
int appliance_set_console_path(struct mull_appliance *a, struct mull_console_config *console,
                               const char *path, const char *item);

/** A medium that lies outside its package is not followed. @return whether it is in it */
bool appliance_medium(struct mull_appliance *a, const char *path, const char *item);

/** Cores of a socket where VMware says so. */
void appliance_set_cores(struct mull_machine_config *c, unsigned cores);

/** Our key for `vmware_tools`, where it is not what a machine of VMware's has: in a VMX file FALSE, in
 *  an OVF that we have written TRUE. */
#define APPLIANCE_VMX_TOOLS "mullion.vmwareTools"

/** Keep a key of a VMX file in the description. */
int appliance_keep_vmx(struct mull_machine_config *c, const char *key, const char *value);

/** Read from a VMX dictionary what is not a drive or a network card, marking it as used. */
int appliance_vmx_settings(struct mull_appliance *a, struct mull_vmx *vmx, struct mull_error *err);

/** Put what is not a drive or a network card into a VMX dictionary. */
int appliance_put_settings(const struct mull_appliance_write *w, struct mull_vmx *out);

/* ---- Guest operating systems (os.c) ---- */

/** VMware's type of an OVF descriptor ("debian12_64Guest") as a VMX file says it. @p out  room for
 *  64 bytes */
void appliance_os_from_vim(const char *vim, char *out);
void appliance_os_to_vim(const char *os, char *out);
/** CIM_OperatingSystem.OsType; 0: not known. */
unsigned appliance_os_to_cim(const char *os);
const char *appliance_os_from_cim(unsigned cim);
/** libosinfo's URI; NULL: not known. @p out  room for 96 bytes */
bool appliance_os_to_uri(const char *os, char *out);
bool appliance_os_from_uri(const char *uri, char *out);

/* ---- Where drives are put in VMware's world (place.c) ---- */

enum place_family { PLACE_SCSI, PLACE_SATA, PLACE_NVME, PLACE_IDE };

struct place {
    enum place_family family;
    unsigned controller, unit;
    const char *adapter; /* as a VMX file's virtualDev; SCSI only */
};

struct placement {
    struct place disk[MULL_CONFIG_DISKS], cdrom[MULL_CONFIG_CDROMS];
};

extern const char *const place_names[4]; /* "scsi", "sata", "nvme", "ide" */

/** Give each drive a place of its own; what has to move is reported. */
int appliance_place(const struct mull_appliance_write *w, struct placement *out,
                    struct mull_error *err);

#endif
