/*
 * The handlers of openapi.json's operations, each named by its operationId. Those that are OP_SLOW
 * run without the lock.
 */
#ifndef MULL_API_REST_OPS_H
#define MULL_API_REST_OPS_H

#include "api/rest/rest.h"

/* ops_host.c */
void op_about(struct request *r);
void op_openapi(struct request *r);
void op_get_host(struct request *r);
void op_change_host(struct request *r);
void op_host_stats(struct request *r);
void op_list_tasks(struct request *r);
void op_cancel_task(struct request *r);
void op_list_events(struct request *r);
void op_list_audit(struct request *r);
/* Of any kind of object. */
void op_list_kind(struct request *r);
void op_get_kind(struct request *r);

/* ops_access.c */
void op_login(struct request *r);
void op_who_am_i(struct request *r);
void op_logout(struct request *r);
void op_create_user(struct request *r);
void op_change_user(struct request *r);
void op_delete_user(struct request *r);
void op_create_group(struct request *r);
void op_change_group(struct request *r);
void op_delete_group(struct request *r);
void op_list_roles(struct request *r);
void op_create_grant(struct request *r);
void op_delete_grant(struct request *r);
void op_create_token(struct request *r);
void op_delete_token(struct request *r);

/* ops_machines.c */
void op_create_machine(struct request *r);
void op_change_machine(struct request *r);
void op_delete_machine(struct request *r);
void op_start(struct request *r);
void op_stop(struct request *r);
void op_restart(struct request *r);
void op_pause(struct request *r);
void op_resume(struct request *r);
void op_reset(struct request *r);
void op_machine_stats(struct request *r);
void op_console_log(struct request *r);
void op_screenshot(struct request *r);
void op_screen_text(struct request *r);
void op_keys(struct request *r);
void op_guest_exec(struct request *r);
void op_read_guest_file(struct request *r);
void op_write_guest_file(struct request *r);
void op_build_image(struct request *r);
void op_list_disks(struct request *r);
void op_add_disk(struct request *r);
void op_grow_disk(struct request *r);
void op_remove_disk(struct request *r);
void op_list_snapshots(struct request *r);
void op_create_snapshot(struct request *r);
void op_apply_snapshot(struct request *r);
void op_delete_snapshot(struct request *r);
void op_export(struct request *r);

/* ops_files.c */
void op_import(struct request *r);
void op_create_upload(struct request *r);
void op_continue_upload(struct request *r);
void op_delete_upload(struct request *r);
void op_download(struct request *r);
void op_delete_image(struct request *r);
void op_create_template(struct request *r);
void op_delete_template(struct request *r);
void op_create_datastore(struct request *r);
void op_change_datastore(struct request *r);
void op_delete_datastore(struct request *r);
void op_list_files(struct request *r);
void op_delete_file(struct request *r);
void op_create_network(struct request *r);
void op_change_network(struct request *r);
void op_delete_network(struct request *r);
void op_list_ports(struct request *r);
void op_list_leases(struct request *r);
void op_create_pool(struct request *r);
void op_change_pool(struct request *r);
void op_delete_pool(struct request *r);

#endif
