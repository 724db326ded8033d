# The front door. On a bare Debian 12:
#   make run      install what is missing, build, boot a guest (a shell on a terminal, else a tour)
#   make test     the same, then every test
# Downloads and builds live in $(BUILD). `make help` lists the rest.

BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
GUEST = $(BUILD)/guest
MULLION = $(BUILD)/mullion
SCRIPTS = scripts

.PHONY: all build run test fuzz bench install clean help setup-%

all: build

help:
	@echo 'make run      build, then boot a guest: its shell on a terminal, else a tour'
	@echo 'make test     build, then every test'
	@echo 'make build    $(BUILD)/mullion, runnable in place'
	@echo 'make install  [PREFIX=/usr/local] [DESTDIR=]'
	@echo 'make fuzz     every fuzz target for FUZZ_SECONDS (600) in total'
	@echo 'make bench    Mullion beside QEMU: boot, CPU and disk workloads'
	@echo 'make clean    remove $(BUILD)'

setup-%:
	@$(SCRIPTS)/setup $*

$(BUILD)/build.ninja:
	meson setup $(BUILD) -Dwerror=true

build: setup-build $(BUILD)/build.ninja
	@ninja -C $(BUILD)

run: setup-run $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@$(SCRIPTS)/guest-assets $(GUEST) 6.12
	@$(SCRIPTS)/run $(MULLION) $(GUEST) $(RUN_OPTIONS)

# What guests need is fetched and made while the programs are built: one waits, the other computes.
test: setup-test $(BUILD)/build.ninja
	@mkdir -p $(GUEST); $(MAKE) --no-print-directory guests > $(GUEST)/log 2>&1 & assets=$$!; \
	    ninja -C $(BUILD) || { kill $$assets; exit 1; }; \
	    wait $$assets || { cat $(GUEST)/log >&2; exit 1; }; cat $(GUEST)/log
	@tests/run --build $(BUILD) --guest $(GUEST) $(TEST_OPTIONS)

.PHONY: guests
guests:
	@$(SCRIPTS)/guest-assets $(GUEST) 6.12 6.1 6.1-amd64 6.1-686-pae 6.1-686 isolinux memtest xen
	@$(SCRIPTS)/guest-small $(GUEST)
	@$(SCRIPTS)/guest-debian $(GUEST)
	@$(SCRIPTS)/guest-disk $(GUEST) || echo 'make: no whole Debian: its test is left out'

fuzz: setup-test
	@tests/run --build $(BUILD) --only fuzz --fuzz-seconds $(or $(FUZZ_SECONDS),600)

bench: setup-bench $(BUILD)/build.ninja
	@ninja -C $(BUILD)
	@$(MAKE) --no-print-directory guests
	bench/boot $(BENCH_OPTIONS)
	bench/cpu $(BENCH_OPTIONS)
	bench/disk $(BENCH_OPTIONS)
	bench/net

install: build
	meson configure $(BUILD) --prefix '$(abspath $(PREFIX))'
	@ninja -C $(BUILD)
	DESTDIR='$(DESTDIR)' meson install -C $(BUILD) --no-rebuild

clean:
	rm -rf $(BUILD)
