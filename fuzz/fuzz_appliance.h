/* What the fuzz targets of machine descriptions share. */
#ifndef MULL_FUZZ_APPLIANCE_H
#define MULL_FUZZ_APPLIANCE_H

#include "machine/appliance/appliance.h"

/** What a reader made of a stranger's file must be writable in each format, and as JSON that is
 *  read the same again. Frees @a. */
void fuzz_appliance(struct mull_appliance *a);

#endif
