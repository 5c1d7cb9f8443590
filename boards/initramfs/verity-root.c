/*
 * verity-root: the device-mapper half of a verified boot, for an initramfs.
 *
 *     verity-root [-w SECONDS] [NAME...]
 *
 * Reads from /proc/cmdline, which the boot file's signature covers, three words:
 *
 *     roothash=HEX64  sealift.salt=HEX64  sealift.blocks=N
 *
 * and looks for a partition called NAME (default: sealift-a, then sealift-b) whose
 * bytes answer to that root hash. A slot holds
 *
 *     data (N blocks of 4096) | verity superblock (one block) | hash tree | ...
 *
 * A slot answers if its first block can be read through dm-verity: that block and the
 * path from it to the root hash are then right. What lies further in is checked when it
 * is read, and a wrong block there must not be run with: so the table is replaced by one
 * with panic_on_corruption before the device is handed out.
 *
 * The root hash decides, the name does not: whoever can exchange slots, or attach a disk
 * with partitions of the same names, still gets nothing else started. NAMEs only say
 * where to look first, which matters when two slots hold the same bytes.
 *
 * On success: status 0, and one line on standard output, "NAME PARTITION DEVICE", such as
 * "sealift-a /dev/vda2 /dev/dm-0". Status 1: no slot answers. Status 2: this cannot work
 * here (usage, command line, no device-mapper). Text on standard error says why.
 *
 * Needs /proc, /sys and /dev (devtmpfs) mounted, and dm-verity. No library but libc, so
 * that a static program of a few ten kilobytes is all of it:
 *
 *     cc -std=c11 -Os -Wall -Wextra -static -o verity-root verity-root.c
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096u
#define SECTORS_PER_BLOCK 8u
#define HEX_DIGITS 64u
#define MOST_BLOCKS (UINT64_C(1) << 40) /* 4 PiB: more is a mistake */
#define MAPPING "sealift-root"
#define MOST_NAMES 8

struct root {
	char hash[HEX_DIGITS + 1];
	char salt[HEX_DIGITS + 1];
	uint64_t blocks;
};

/* ── the signed command line ─────────────────────────────────────────────────────── */

/* The value of the one word KEY=VALUE; NULL if there is none, or more than one: then
 * somebody could add, and it would be unclear which one the signature meant. */
static const char *word(char *line, const char *key)
{
	const char *found = NULL;
	size_t length = strlen(key);
	char *rest = NULL;

	for (char *at = strtok_r(line, " \t\n", &rest); at; at = strtok_r(NULL, " \t\n", &rest)) {
		if (strncmp(at, key, length) != 0 || at[length] != '=')
			continue;
		if (found)
			return NULL;
		found = at + length + 1;
	}
	return found;
}

static int hex_word(const char *line, const char *key, char into[HEX_DIGITS + 1])
{
	char copy[BLOCK];
	const char *value;

	strcpy(copy, line);
	value = word(copy, key);
	if (!value || strlen(value) != HEX_DIGITS || strspn(value, "0123456789abcdef") != HEX_DIGITS) {
		fprintf(stderr, "verity-root: no one %s= with %u hex digits on the command line\n", key,
			HEX_DIGITS);
		return -1;
	}
	strcpy(into, value);
	return 0;
}

static int count_word(const char *line, const char *key, uint64_t *into)
{
	char copy[BLOCK];
	const char *value;
	char *end = NULL;

	strcpy(copy, line);
	value = word(copy, key);
	errno = 0;
	if (value && isdigit((unsigned char)*value))
		*into = strtoull(value, &end, 10);
	if (!end || *end != '\0' || errno || *into == 0 || *into > MOST_BLOCKS) {
		fprintf(stderr, "verity-root: no one %s= with a number on the command line\n", key);
		return -1;
	}
	return 0;
}

static int read_command_line(struct root *root)
{
	char line[BLOCK];
	FILE *file = fopen("/proc/cmdline", "re");
	size_t length;

	if (!file) {
		perror("verity-root: /proc/cmdline");
		return -1;
	}
	length = fread(line, 1, sizeof(line) - 1, file);
	fclose(file);
	if (length == sizeof(line) - 1 || memchr(line, '\0', length)) {
		fprintf(stderr, "verity-root: the command line is too long\n");
		return -1;
	}
	line[length] = '\0';
	return hex_word(line, "roothash", root->hash) || hex_word(line, "sealift.salt", root->salt) ||
	       count_word(line, "sealift.blocks", &root->blocks);
}

/* ── partitions by name ──────────────────────────────────────────────────────────── */

/* The device of block device ENTRY if its partition table calls it NAME, else 0. */
static dev_t named(const char *entry, const char *name, char *node, size_t room)
{
	char path[512], line[256];
	unsigned major_number = 0, minor_number = 0;
	int matches = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/block/%s/uevent", entry);
	file = fopen(path, "re");
	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (sscanf(line, "MAJOR=%u", &major_number) == 1 || sscanf(line, "MINOR=%u", &minor_number) == 1)
			continue;
		if (strncmp(line, "PARTNAME=", 9) == 0)
			matches = strcmp(line + 9, name) == 0;
		else if (strncmp(line, "DEVNAME=", 8) == 0)
			snprintf(node, room, "/dev/%s", line + 8);
	}
	fclose(file);
	return matches ? makedev(major_number, minor_number) : 0;
}

/* ── device-mapper ───────────────────────────────────────────────────────────────── */

/* One request and its answer; the kernel wants the parameters behind the head. */
static union {
	struct dm_ioctl head;
	char room[2 * BLOCK];
} request;

static struct dm_ioctl *prepared(void)
{
	memset(&request, 0, sizeof(request));
	request.head.version[0] = DM_VERSION_MAJOR;
	request.head.data_size = sizeof(request);
	request.head.data_start = sizeof(request.head);
	strcpy(request.head.name, MAPPING);
	return &request.head;
}

static int make_mapping(int control, dev_t *device)
{
	struct dm_ioctl *head = prepared();

	if (ioctl(control, DM_DEV_CREATE, head) < 0) {
		perror("verity-root: cannot make a mapping");
		return -1;
	}
	*device = head->dev;
	return 0;
}

/* Give the mapping a table over PARTITION, and let it take effect. The mapping may have
 * had another table before: resuming puts the new one in its place. */
static int map(int control, const struct root *root, dev_t partition, const char *options)
{
	struct dm_ioctl *head = prepared();
	struct dm_target_spec *target = (void *)(request.room + sizeof(request.head));
	char *text = (char *)(target + 1);
	size_t room = sizeof(request.room) - (size_t)(text - request.room);
	int length;

	head->flags = DM_READONLY_FLAG;
	head->target_count = 1;
	target->length = root->blocks * SECTORS_PER_BLOCK;
	strcpy(target->target_type, "verity");
	/* version, data and hash device, block sizes, data blocks, first hash block */
	length = snprintf(text, room, "1 %u:%u %u:%u %u %u %llu %llu sha256 %s %s %s", major(partition),
			  minor(partition), major(partition), minor(partition), BLOCK, BLOCK,
			  (unsigned long long)root->blocks, (unsigned long long)root->blocks + 1, root->hash,
			  root->salt, options);
	if (length < 0 || (size_t)length >= room)
		return -1;
	if (ioctl(control, DM_TABLE_LOAD, head) < 0)
		return -1;
	return ioctl(control, DM_DEV_SUSPEND, prepared()); /* without DM_SUSPEND_FLAG: resume */
}

static void unmap(int control)
{
	ioctl(control, DM_DEV_REMOVE, prepared());
}

/* Whether block 0 can be read, and is therefore right; past every cache. */
static int answers(const char *node)
{
	static char block[BLOCK] __attribute__((aligned(BLOCK)));
	int file = open(node, O_RDONLY | O_DIRECT | O_CLOEXEC);
	int right;

	if (file < 0) {
		perror(node);
		return 0;
	}
	right = pread(file, block, sizeof(block), 0) == (ssize_t)sizeof(block);
	close(file);
	return right;
}

/* devtmpfs makes the node; the first resume of a mapping may be a moment ahead of it. */
static int wait_for_node(const char *node)
{
	for (int tries = 0; tries < 100; tries++) {
		if (access(node, F_OK) == 0)
			return 0;
		nanosleep(&(struct timespec){ .tv_nsec = 10 * 1000 * 1000 }, NULL);
	}
	fprintf(stderr, "verity-root: %s did not appear\n", node);
	return -1;
}

/* ── the search ──────────────────────────────────────────────────────────────────── */

/* Try every partition called NAME; 0 when one answers, and is open for good. */
static int try_name(int control, const struct root *root, const char *name, const char *mapped)
{
	DIR *all = opendir("/sys/class/block");
	struct dirent *entry;
	int status = 1;

	if (!all)
		return 1;
	while (status && (entry = readdir(all))) {
		char node[256] = "";
		dev_t partition = named(entry->d_name, name, node, sizeof(node));

		if (!partition)
			continue;
		if (map(control, root, partition, "") < 0) {
			fprintf(stderr, "verity-root: %s (%s) cannot hold this root\n", name, node);
			continue;
		}
		if (wait_for_node(mapped) < 0)
			break;
		if (!answers(mapped)) {
			fprintf(stderr, "verity-root: %s (%s) holds another root, or is damaged\n", name, node);
			continue;
		}
		if (map(control, root, partition, "1 panic_on_corruption") < 0) {
			perror("verity-root: cannot open for good");
			continue;
		}
		printf("%s %s %s\n", name, node, mapped);
		status = 0;
	}
	closedir(all);
	return status;
}

/* How many of the names some partition has. */
static int present(char *const *names, int count)
{
	int found = 0;

	for (int i = 0; i < count; i++) {
		DIR *all = opendir("/sys/class/block");
		struct dirent *entry;
		char node[256];
		int here = 0;

		while (all && !here && (entry = readdir(all)))
			here = named(entry->d_name, names[i], node, sizeof(node)) != 0;
		if (all)
			closedir(all);
		found += here;
	}
	return found;
}

/* Disks may come late: wait until every name is there, or the time is over. */
static void wait_for_partitions(char *const *names, int count, int seconds)
{
	for (int tenths = 0; tenths < seconds * 10 && present(names, count) < count; tenths++)
		nanosleep(&(struct timespec){ .tv_nsec = 100 * 1000 * 1000 }, NULL);
}

int main(int argc, char **argv)
{
	static char *usual[] = { "sealift-a", "sealift-b" };
	char **names = usual;
	char mapped[64];
	struct root root = { 0 };
	dev_t device;
	int option, control, seconds = 10, count = 2;

	while ((option = getopt(argc, argv, "w:")) != -1) {
		if (option != 'w') {
			fprintf(stderr, "usage: verity-root [-w SECONDS] [NAME...]\n");
			return 2;
		}
		seconds = atoi(optarg);
	}
	if (optind < argc) {
		names = argv + optind;
		count = argc - optind;
	}
	if (count > MOST_NAMES || read_command_line(&root) != 0)
		return 2;
	control = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	if (control < 0) {
		perror("verity-root: /dev/mapper/control");
		return 2;
	}
	wait_for_partitions(names, count, seconds);
	if (make_mapping(control, &device) < 0)
		return 2;
	snprintf(mapped, sizeof(mapped), "/dev/dm-%u", minor(device));
	for (int i = 0; i < count; i++)
		if (try_name(control, &root, names[i], mapped) == 0)
			return 0;
	unmap(control);
	fprintf(stderr, "verity-root: no slot answers to root hash %s\n", root.hash);
	return 1;
}
