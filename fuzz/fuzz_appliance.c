/* See fuzz_appliance.h. */
#include "fuzz_appliance.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check_json(struct mull_appliance *a)
{
    struct mull_machine_config again;
    struct mull_error err = {0};
    for (unsigned i = 0; i < a->config.disk_count; i++)
        a->config.disk[i].path = strdup("disk");
    json_t *one = mull_machine_config_write(&a->config);
    char *text = json_dumps(one, 0);
    if (!text || mull_machine_config_read(text, &again, &err)) {
        fprintf(stderr, "%s\n%s\n", text ? text : "(none)", err.message);
        abort();
    }
    json_t *two = mull_machine_config_write(&again);
    if (!json_equal(one, two))
        abort();
    mull_machine_config_free(&again);
    json_decref(one);
    json_decref(two);
    free(text);
}

void fuzz_appliance(struct mull_appliance *a)
{
    struct mull_appliance_disk disk[MULL_CONFIG_DISKS], cdrom[MULL_CONFIG_CDROMS] = {0};
    struct mull_report report = {0};
    struct mull_appliance_write w = {
        .config = &a->config, .disk = disk, .cdrom = cdrom, .report = &report};
    struct mull_vmx vmx;
    struct mull_ovf ovf;
    struct mull_error err = {0};
    char *text = NULL, missing[64];
    for (unsigned i = 0; i < MULL_CONFIG_DISKS; i++)
        disk[i] = (struct mull_appliance_disk){"disk.vmdk", 1, 1, 0, "vmdk"};
    check_json(a);
    mull_machine_config_missing(&a->config, missing, sizeof(missing));
    mull_appliance_open_properties(a, missing, sizeof(missing));
    if (!mull_appliance_to_vmx(&w, &vmx, &err))
        mull_vmx_free(&vmx);
    if (!mull_appliance_to_ovf(&w, &text, &err)) {
        /* What we write must be a document that we read. */
        if (mull_ovf_parse("again", text, strlen(text), NULL, &ovf, &err)) {
            fprintf(stderr, "%s\n%s\n", text, err.message);
            abort();
        }
        mull_ovf_free(&ovf);
        free(text);
    }
    if (!mull_appliance_to_libvirt(&w, &text, &err))
        free(text);
    free(mull_appliance_environment(&a->config));
    mull_report_free(&report);
    mull_appliance_free(a);
}
