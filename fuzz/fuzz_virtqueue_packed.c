/* Fuzzes the packed virtqueue, under the same device as the split one. */
#define FUZZ_PACKED
#include "fuzz_virtqueue.c"
