/* NVIDIA's management library as the tests need it: the real names, types and error codes, answers set by the test.
   The values a test sets are those that nvidia-smi and NVML give on real cards; no card is needed. */
#include <string.h>

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } rates_t;
typedef struct { unsigned int pid; unsigned long long memory; unsigned int instance, compute; } process_t;
typedef struct {
    char name[96], uuid[96];
    memory_t memory;
    int major, minor, busy, celsius, memory_code, process_code, handle_code, split;
    unsigned int processes;
    process_t process[128];
} card_t;

static card_t cards[8];
static unsigned int count;
static int init_code, opened;

void fake_reset(int code) { memset(cards, 0, sizeof cards); count = 0; opened = 0; init_code = code; }
int fake_opened(void) { return opened; }

void fake_card(const char *name, const char *uuid, unsigned long long total, unsigned long long free_, int major,
               int minor, int busy, int celsius) {
    card_t *card = &cards[count++];
    strncpy(card->name, name, 95);
    strncpy(card->uuid, uuid, 95);
    card->memory = (memory_t){total, free_, total - free_};
    card->major = major; card->minor = minor; card->busy = busy; card->celsius = celsius;
}
void fake_process(unsigned int index, unsigned int pid, unsigned long long memory) {
    cards[index].process[cards[index].processes++] = (process_t){pid, memory, 0xffffffffu, 0xffffffffu};
}
void fake_codes(unsigned int index, int handle, int memory, int process) {
    cards[index].handle_code = handle; cards[index].memory_code = memory; cards[index].process_code = process;
}

void fake_split(unsigned int index, int how) { cards[index].split = how; }
void fake_free(unsigned int index, unsigned long long free_) {
    cards[index].memory.free = free_;
    cards[index].memory.used = cards[index].memory.total - free_;
    cards[index].processes = 0;
}

int nvmlInit_v2(void) { opened += init_code == 0; return init_code; }
int nvmlShutdown(void) { opened--; return 0; }
const char *nvmlErrorString(int code) {
    switch (code) {
        case 4: return "Insufficient Permissions";
        case 9: return "Driver Not Loaded";
        case 15: return "GPU is lost";
        case 18: return "Driver/library version mismatch";
        default: return "Unknown Error";
    }
}
int nvmlSystemGetDriverVersion(char *text, unsigned int size) { strncpy(text, "570.86.15", size); return 0; }
int nvmlDeviceGetCount_v2(unsigned int *found) { *found = count; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) {
    *handle = &cards[index];
    return cards[index].handle_code;
}
int nvmlDeviceGetMemoryInfo(card_t *card, memory_t *memory) { *memory = card->memory; return card->memory_code; }
int nvmlDeviceGetName(card_t *card, char *text, unsigned int size) { strncpy(text, card->name, size); return 0; }
int nvmlDeviceGetUUID(card_t *card, char *text, unsigned int size) { strncpy(text, card->uuid, size); return 0; }
int nvmlDeviceGetCudaComputeCapability(card_t *card, int *major, int *minor) {
    *major = card->major; *minor = card->minor;
    return 0;
}
/* -1: a card that knows no such mode. */
int nvmlDeviceGetMigMode(card_t *card, unsigned int *now, unsigned int *later) {
    *now = card->split > 0; *later = card->split > 1;
    return card->split < 0 ? 3 : 0;
}
int nvmlDeviceGetUtilizationRates(card_t *card, rates_t *rates) {
    *rates = (rates_t){card->busy, 0};
    return card->busy < 0 ? 3 : 0;
}
int nvmlDeviceGetTemperature(card_t *card, int sensor, unsigned int *celsius) {
    *celsius = card->celsius;
    return sensor != 0 ? 2 : card->celsius < 0 ? 3 : 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(card_t *card, unsigned int *found, process_t *table) {
    unsigned int room = *found;
    *found = card->processes;
    if (card->process_code) return card->process_code;
    if (room < card->processes) return 7;
    memcpy(table, card->process, card->processes * sizeof *table);
    return 0;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(card_t *card, unsigned int *found, process_t *table) {
    (void)card; (void)table;
    *found = 0;
    return 0;
}
