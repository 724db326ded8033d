/* Fuzzes the clipboard's protocol: a guest's agent that says anything, in pieces. */
#include <stdlib.h>
#include <string.h>

#include "vmm/vdagent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_cut(void *opaque, const char *text, size_t len)
{
    if (!len || memchr(text, '\0', len))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vmm_vdagent *a = vmm_vdagent_create(on_cut, NULL);

    if (!a)
        abort();
    for (size_t part, turn = 1; size; data += part, size -= part, turn++) {
        part = turn * 7 % 61 + 1 < size ? turn * 7 % 61 + 1 : size;
        vmm_vdagent_input(a, data, part);
        if (turn % 5 == 0)
            vmm_vdagent_cut(a, "text", 4);
        if (turn % 3 == 0)
            vmm_vdagent_out(a)->size = 0;
    }
    vmm_vdagent_free(a);
    return 0;
}
