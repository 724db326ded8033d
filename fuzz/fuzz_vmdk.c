/* Fuzzes the vmdk format: see fuzz_image.h. */
#define FUZZ_FORMAT "vmdk"
#include "fuzz_image.h"
