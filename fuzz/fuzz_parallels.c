/* Fuzzes the parallels format: see fuzz_image.h. */
#define FUZZ_FORMAT "parallels"
#include "fuzz_image.h"
