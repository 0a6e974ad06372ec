/* A fake of libjitterentropy's interface, for failures that the library has only on a broken CPU: the test says what each
 * call returns, and is told what was called. What the library promises is in jitterentropy(3). */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

struct rand_data {
  unsigned int osr, flags;
};

static int init_result, no_memory, allocated, freed, last_flags;
static ssize_t read_result;

void script(int init, int without_memory, int read) {
  init_result = init;
  no_memory = without_memory;
  read_result = read;
}

/* Live collectors; a double free shows as a negative number. */
int collectors(void) { return allocated - freed; }

int flags_seen(void) { return last_flags; }

int jent_entropy_init(void) { return init_result; }

struct rand_data *jent_entropy_collector_alloc(unsigned int osr, unsigned int flags) {
  if (no_memory) return NULL;
  struct rand_data *collector = calloc(1, sizeof *collector);
  collector->osr = osr;
  collector->flags = flags;
  last_flags = (int)flags;
  allocated++;
  return collector;
}

void jent_entropy_collector_free(struct rand_data *collector) {
  if (collector != NULL) freed++;
  /* Not given back: a second free of it is to be counted, not to crash. */
}

/* Replaces the collector on every success, as the library may. */
ssize_t jent_read_entropy_safe(struct rand_data **collector, char *data, size_t length) {
  if (*collector == NULL) return -1;
  if (read_result == -1) jent_entropy_collector_free(*collector);
  if (read_result < 0) return read_result;
  struct rand_data *old = *collector;
  *collector = jent_entropy_collector_alloc(old->osr + 1, old->flags);
  jent_entropy_collector_free(old);
  memset(data, 'j', length);
  return (ssize_t)length;
}
