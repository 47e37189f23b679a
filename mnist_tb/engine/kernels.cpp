// The whole network on the CPU, forward and backward, a few images at a time, which stay in the core's own cache all the
// while. kernels.py compiles this file for the machine it runs on and says what the two functions at the end do.
//
// REAL is float, or bf16 (the upper half of a float); C1, C2, C3 are the channels of the convolutions, multiples of 16.
// Activations lie as [row, column, channel], and those that a convolution reads have a border of zeros around them.
// All sums are floats. Images are shared out in blocks, by the size of the batch alone, whose sums are added in order: the
// number of threads changes no bit of the result. A NaN stays one on every way, so that a diverged training is seen.

#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16;  // floats in a register
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int TAPS = 9, CLASSES = 10, SIDE = 28, MID = 14, LOW = 7;
constexpr int LEAST_BLOCKS = 8, MOST_BLOCKS = 64, BLOCK = 8;  // of a batch: their number, and images in one

typedef uint16_t bf16;
typedef REAL real;
constexpr int GROUP = sizeof(real) == 4 ? 2 : 8;  // images that are in the cache at once
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));

template <class V> static inline V load(const void *from) {
    V value;
    memcpy(&value, from, sizeof value);
    return value;
}
template <class V> static inline void store(void *to, V value) { memcpy(to, &value, sizeof value); }

static inline floats get(const float *from) { return load<floats>(from); }
static inline floats get(const bf16 *from) { return (floats)(__builtin_convertvector(load<halves>(from), words) << 16); }
static inline void put(float *to, floats value) { store(to, value); }
static inline void put(bf16 *to, floats value) {
    const words bits = (words)value;
    words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to the nearest, ties to even
    rounded = value != value ? (bits >> 16) | 0x40 : rounded;    // a NaN stays one
    store(to, __builtin_convertvector(rounded, halves));
}
static inline float get_one(const float *from) { return *from; }
static inline float get_one(const bf16 *from) {
    const uint32_t bits = (uint32_t)*from << 16;
    return load<float>(&bits);
}

// A unit is what one lane multiplies at a time: a float, or a pair of bf16, whose two products are added up.
constexpr int STEP = 4 / sizeof(real);
typedef uint32_t unit;

static inline floats add_products(floats sum, words lanes, unit same) {
    if constexpr (STEP == 1) return sum + (floats)lanes * load<float>(&same);
#ifdef __AVX512BF16__
    return (floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)lanes, (__m512bh)_mm512_set1_epi32(same));
#else
    static_assert(STEP == 1, "bf16 needs a CPU with AVX-512 BF16");
#endif
}

// Sums that are in registers at once: of some vectors of outputs, for some pixels or inputs. AVX-512 has 32 registers,
// AVX 16; ARM has 32 of four lanes, and SSE 16 of them.
#if defined(__AVX512F__)
constexpr int MOST_VECTORS = 2, MOST_ROWS = 8;
#elif defined(__AVX__)
constexpr int MOST_VECTORS = 2, MOST_ROWS = 6;
#else
constexpr int MOST_VECTORS = 1, MOST_ROWS = 8;
#endif
template <int OUT> constexpr int VECTORS = OUT % (MOST_VECTORS * LANES) ? 1 : MOST_VECTORS;

// Call work(begin, size) for as few and as equal parts of `count` as hold MOST_ROWS each; both are constants.
template <int VALUE> using constant = std::integral_constant<int, VALUE>;
template <int COUNT, class Work, int... PART>
static inline void in_parts(const Work &work, std::integer_sequence<int, PART...>) {
    constexpr int N = sizeof...(PART);
    (work(constant<COUNT * PART / N>{}, constant<COUNT * (PART + 1) / N - COUNT * PART / N>{}), ...);
}
template <int COUNT, class Work> static inline void in_parts(const Work &work) {
    in_parts<COUNT>(work, std::make_integer_sequence<int, (COUNT + MOST_ROWS - 1) / MOST_ROWS>{});
}

// ---- The threads

// The work of a call is cut into pieces, which whoever is there takes one after the other: the calling thread waits for
// pieces that another thread has begun, never for a thread that has not come. Beside other programs, which take a core
// away for milliseconds, that keeps a training near its fair share; OpenMP's barriers wait for every thread, spinning.
struct ThreadPool {
    using Piece = void (*)(const void *work, int piece);

    // Do pieces 0 to count - 1, fewer than 2^16, of some work on up to `threads` threads, and wait until all are done.
    template <class Work> void share(int threads, int count, const Work &work) {
        if (threads <= 1) {
            for (int piece = 0; piece < count; piece++) work(piece);
            return;
        }
        for (; helpers < threads - 1; helpers++) std::thread([this, me = helpers] { help(me); }).detach();
        limit.store(threads - 1), total.store(count), done.store(0), what.store(&work);
        how.store([](const void *work, int piece) { (*(const Work *)work)(piece); });
        left.store((left.load() / JOB + 1) * JOB + count);
        if (sleeping.load()) {
            { std::lock_guard<std::mutex> held(mutex); }
            wake.notify_all();
        }
        while (take(false)) {}
        const auto all = [&] { return done.load() == count; };
        if (!spin(all)) {
            std::unique_lock<std::mutex> held(mutex);
            waiting.store(true);
            finished.wait(held, all);
            waiting.store(false);
        }
    }

  private:
    // By measurement: from 20 to 200 nothing changes on a quiet machine, and beside other programs less is better.
    static constexpr auto SPIN = std::chrono::microseconds(50);

    static constexpr uint64_t JOB = 1ull << 32, FRONT = 1ull << 16;

    std::atomic<uint64_t> left{0};  // the number of the job, then the first piece that is left, then the end of those left
    std::atomic<int> total{0}, done{0}, limit{0}, sleeping{0};
    std::atomic<const void *> what{nullptr};
    std::atomic<Piece> how{nullptr};
    std::atomic<bool> waiting{false};
    std::mutex mutex;
    std::condition_variable wake, finished;
    int helpers = 0;

    static int front(uint64_t pieces) { return pieces / FRONT % FRONT; }
    static int back(uint64_t pieces) { return pieces % FRONT; }
    bool is_open() const { return front(left.load()) < back(left.load()); }

    // Do the first or the last of the pieces that are left; whether there was one. What a thread did at its end of the
    // last job is still in its core's cache.
    bool take(bool last) {
        uint64_t pieces = left.load();
        const int count = total.load();
        const void *work = what.load();
        const Piece function = how.load();
        if (front(pieces) >= back(pieces)) return false;
        if (!left.compare_exchange_strong(pieces, last ? pieces - 1 : pieces + FRONT)) return true;  // another one was first
        function(work, last ? back(pieces) - 1 : front(pieces));
        if (done.fetch_add(1) + 1 == count && waiting.load()) {
            { std::lock_guard<std::mutex> held(mutex); }
            finished.notify_one();
        }
        return true;
    }

    // Wait for a short while; whether it has come true.
    template <class Test> static bool spin(const Test &test) {
        const auto end = std::chrono::steady_clock::now() + SPIN;
        do {
            for (int i = 0; i < 50; i++) {
                if (test()) return true;
#if defined(__x86_64__)
                __builtin_ia32_pause();
#endif
            }
        } while (std::chrono::steady_clock::now() < end);
        return false;
    }

    void help(int me) {
        const auto wanted = [&] { return me < limit.load() && is_open(); };
        for (;;) {
            while (me < limit.load() && take(me % 2 == 0)) {}
            if (spin(wanted)) continue;
            std::unique_lock<std::mutex> held(mutex);
            sleeping++;
            wake.wait(held, wanted);
            sleeping--;
        }
    }
};
static ThreadPool &pool = *new ThreadPool;  // never destroyed: its threads end with the process

// ---- The weights, in the orders in which the loops want them

template <int IN, int OUT> struct Packed {  // [outputs / TILE][tap][inputs / STEP][TILE] units
    static constexpr int TILE = VECTORS<OUT> * LANES;
    alignas(64) unit value[OUT * TAPS * IN / STEP];
    unit *at(int o, int t, int i) { return value + ((o / TILE * TAPS + t) * (IN / STEP) + i / STEP) * TILE + o % TILE; }
};

static struct {
    Packed<C1, C2> second;
    Packed<C2, C3> third;
    Packed<C2, C1> second_back;
    Packed<C3, C2> third_back;
    alignas(64) float first[TAPS][C1];
    alignas(64) real linear[CLASSES][LOW * LOW * C3];
    alignas(64) float bias1[C1], bias2[C2], bias3[C3], bias4[CLASSES];
} weights;

// Where each parameter lies in the vector of all: convolutions as [output, row, column, input], the linear layer as
// torch has it, [class, channel, row, column].
constexpr long W1 = 0, B1 = W1 + C1 * TAPS, W2 = B1 + C1, B2 = W2 + C2 * TAPS * C1, W3 = B2 + C2;
constexpr long B3 = W3 + C3 * TAPS * C2, W4 = B3 + C3, B4 = W4 + CLASSES * LOW * LOW * C3, PARAMETERS = B4 + CLASSES;

template <int IN, int OUT>
static void pack(const real *from, Packed<IN, OUT> &to, Packed<OUT, IN> &back, int o) {  // outputs o to o + STEP - 1
    for (int t = 0; t < TAPS; t++)
        for (int i = 0; i < IN; i += STEP) {
            real square[STEP][STEP], turned[STEP][STEP];
            for (int a = 0; a < STEP; a++)
                for (int b = 0; b < STEP; b++)
                    turned[b][a] = square[a][b] = from[((o + a) * TAPS + t) * IN + i + b];
            for (int a = 0; a < STEP; a++) {
                memcpy(to.at(o + a, t, i), square[a], sizeof(unit));
                memcpy(back.at(i + a, TAPS - 1 - t, o), turned[a], sizeof(unit));
            }
        }
}

static void pack_small(const real *from) {
    for (int t = 0; t < TAPS; t++)
        for (int c = 0; c < C1; c++) weights.first[t][c] = get_one(from + W1 + c * TAPS + t);
    for (int c = 0; c < C1; c++) weights.bias1[c] = get_one(from + B1 + c);
    for (int c = 0; c < C2; c++) weights.bias2[c] = get_one(from + B2 + c);
    for (int c = 0; c < C3; c++) weights.bias3[c] = get_one(from + B3 + c);
    for (int k = 0; k < CLASSES; k++) weights.bias4[k] = get_one(from + B4 + k);
}

static void pack_linear(const real *from, int k) {
    for (int c = 0; c < C3; c++)
        for (int p = 0; p < LOW * LOW; p++)
            weights.linear[k][p * C3 + c] = from[W4 + (k * C3 + c) * LOW * LOW + p];
}

constexpr int PARTS = 16;  // into which packing the weights and adding up the gradients are cut

static void pack_part(const real *from, int part) {
    for (int o = C2 / STEP * part / PARTS * STEP; o < C2 / STEP * (part + 1) / PARTS * STEP; o += STEP)
        pack(from + W2, weights.second, weights.second_back, o);
    for (int o = C3 / STEP * part / PARTS * STEP; o < C3 / STEP * (part + 1) / PARTS * STEP; o += STEP)
        pack(from + W3, weights.third, weights.third_back, o);
    for (int k = CLASSES * part / PARTS; k < CLASSES * (part + 1) / PARTS; k++) pack_linear(from, k);
    if (part == 0) pack_small(from);
}

// ---- A thread's images and what becomes of them

template <int SIZE, int CHANNELS> struct Bordered {
    static constexpr int ROW = (SIZE + 2) * CHANNELS;
    alignas(64) real value[(SIZE + 3) * ROW];  // a row more than needed: `Pairs` reads one pixel past the end
    const real *row(int y) const { return value + y * ROW; }
    real *pixel(int y, int x) { return value + (y + 1) * ROW + (x + 1) * CHANNELS; }
};

struct Image {
    float input[SIDE + 2][SIDE + 2];
    Bordered<MID, C1> first;
    Bordered<LOW, C2> second;
    alignas(64) real third[LOW * LOW * C3];
    uint8_t first_place[MID * MID * C1], second_place[LOW * LOW * C2];  // which of four the pooling took; 4: none
    float logits[CLASSES];                                              // and then their gradient
    Bordered<LOW, C3> third_gradient;
    Bordered<MID, C2> second_gradient;  // before the pooling
    alignas(64) float first_gradient[MID * MID * C1];
};

// ReLU of the largest of four, and which one that is: 0 to 3, or 4 where the ReLU is shut.
static inline floats relu_of_largest(floats a, floats b, floats c, floats d, ints *which) {
    const ints zero = {};
    floats most = a;
    ints place = zero, higher = (b > most) | (b != b);
    most = higher ? b : most, place = higher ? zero + 1 : place;
    higher = (c > most) | (c != c);
    most = higher ? c : most, place = higher ? zero + 2 : place;
    higher = (d > most) | (d != d);
    most = higher ? d : most, place = higher ? zero + 3 : place;
    const ints shut = most <= 0;
    *which = shut ? zero + 4 : place;
    return shut ? floats{} : most;
}
static inline void put_place(uint8_t *to, ints place) { store(to, __builtin_convertvector(place, bytes)); }
static inline ints get_place(const uint8_t *from) { return __builtin_convertvector(load<bytes>(from), ints); }

// Some pixels of a row of a 3×3 convolution, from three rows with borders: VECTORS of outputs of each, in registers.
template <int PIXELS, int IN, int OUT, int ROW>
static inline void convolve_pixels(const real *in, const unit *w, float (*out)[OUT]) {
    constexpr int VS = VECTORS<OUT>;
    floats sum[PIXELS][VS] = {};
    for (int t = 0; t < TAPS; t++) {
        const real *from = in + t / 3 * ROW + t % 3 * IN;
        for (int i = 0; i < IN; i += STEP, w += VS * LANES) {
            words lanes[VS];
            for (int v = 0; v < VS; v++) lanes[v] = load<words>(w + v * LANES);
#pragma GCC unroll 8
            for (int p = 0; p < PIXELS; p++) {
                const unit same = load<unit>(from + p * IN + i);
                for (int v = 0; v < VS; v++) sum[p][v] = add_products(sum[p][v], lanes[v], same);
            }
        }
    }
    for (int p = 0; p < PIXELS; p++)
        for (int v = 0; v < VS; v++) put(&out[p][v * LANES], sum[p][v]);
}

template <int IN, int OUT, int WIDTH>
static inline void convolve_row(const real *in, const Packed<IN, OUT> &packed, float (*out)[OUT]) {
    for (int o = 0; o < OUT; o += VECTORS<OUT> * LANES)
        in_parts<WIDTH>([=, &packed](auto x, auto pixels) {
            const unit *w = packed.value + o * TAPS * IN / STEP;
            convolve_pixels<pixels, IN, OUT, (WIDTH + 2) * IN>(in + x * IN, w, (float(*)[OUT])&out[x][o]);
        });
}

// One image through all layers; what the backward pass needs stays in `image`.
static void forward(const float *input, Image &image) {
    // The input, into a field with a border of zeros.
    for (int y = 0; y < SIDE; y++) memcpy(&image.input[y + 1][1], input + y * SIDE, SIDE * sizeof(float));

    // First layer: 16 filters at once; the four results of a pooling window, of which the largest is kept.
    for (int c = 0; c < C1; c += LANES) {
        floats tap[TAPS];
        for (int t = 0; t < TAPS; t++) tap[t] = get(&weights.first[t][c]);
        for (int y = 0; y < MID; y++)
            for (int x = 0; x < MID; x++) {
                floats sum[4] = {};
#pragma GCC unroll 4
                for (int s = 0; s < 4; s++)
#pragma GCC unroll 9
                    for (int t = 0; t < TAPS; t++)
                        sum[s] += tap[t] * image.input[2 * y + s / 2 + t / 3][2 * x + s % 2 + t % 3];
                const floats bias = get(weights.bias1 + c);
                ints place;
                put(image.first.pixel(y, x) + c,
                    relu_of_largest(sum[0] + bias, sum[1] + bias, sum[2] + bias, sum[3] + bias, &place));
                put_place(image.first_place + (y * MID + x) * C1 + c, place);
            }
    }

    // Second layer: two rows of the convolution make one row after the pooling.
    for (int y = 0; y < LOW; y++) {
        alignas(64) float above[MID][C2], below[MID][C2];
        convolve_row<C1, C2, MID>(image.first.row(2 * y), weights.second, above);
        convolve_row<C1, C2, MID>(image.first.row(2 * y + 1), weights.second, below);
        for (int x = 0; x < LOW; x++)
            for (int c = 0; c < C2; c += LANES) {
                const floats bias = get(weights.bias2 + c);
                ints place;
                put(image.second.pixel(y, x) + c,
                    relu_of_largest(get(&above[2 * x][c]) + bias, get(&above[2 * x + 1][c]) + bias,
                                    get(&below[2 * x][c]) + bias, get(&below[2 * x + 1][c]) + bias, &place));
                put_place(image.second_place + (y * LOW + x) * C2 + c, place);
            }
    }

    // Third layer: row by row, without a pooling.
    for (int y = 0; y < LOW; y++) {
        alignas(64) float row[LOW][C3];
        convolve_row<C2, C3, LOW>(image.second.row(y), weights.third, row);
        for (int x = 0; x < LOW; x++)
            for (int c = 0; c < C3; c += LANES) {
                const floats sum = get(&row[x][c]) + get(weights.bias3 + c);
                put(image.third + (y * LOW + x) * C3 + c, sum <= 0 ? floats{} : sum);
            }
    }

    // Linear layer: all ten dot products in one pass over the activations, then the sum of each one's lanes.
    floats sum[CLASSES] = {};
    for (int f = 0; f < LOW * LOW * C3; f += LANES) {
        const floats value = get(image.third + f);
#pragma GCC unroll 10
        for (int k = 0; k < CLASSES; k++) sum[k] += value * get(weights.linear[k] + f);
    }
    for (int k = 0; k < CLASSES; k++) {
        image.logits[k] = weights.bias4[k];
        for (int l = 0; l < LANES; l++) image.logits[k] += sum[k][l];
    }
}

// Cross-entropy and whether the prediction is right; the logits become the loss's gradient by them, times `scale`. Of the
// target, `smoothing` is shared out over all classes evenly.
static float cross_entropy(float *logits, long label, float smoothing, float scale, int *is_correct) {
    int best = 0;
    for (int k = 1; k < CLASSES; k++)
        if (logits[k] > logits[best]) best = k;
    *is_correct = best == label;
    float total = 0, sum = 0;
    const float highest = logits[best], at_label = logits[label], even = smoothing / CLASSES;
    for (int k = 0; k < CLASSES; k++) total += expf(logits[k] - highest), sum += logits[k];
    for (int k = 0; k < CLASSES; k++)
        logits[k] = scale * (expf(logits[k] - highest) / total - ((k == label) * (1 - smoothing) + even));
    return logf(total) + highest - at_label + (smoothing * at_label - even * sum);
}

// From the logits' gradient to that of every activation; the biases' and the first convolution's are added to `sums`.
static void backward(Image &image, float *sums) {
    // Linear layer, and the ReLU before it: a zero activation passes no gradient.
    const float *gradient = image.logits;
    for (int p = 0; p < LOW * LOW; p++)
        for (int c = 0; c < C3; c += LANES) {
            floats sum = {};
#pragma GCC unroll 10
            for (int k = 0; k < CLASSES; k++) sum += gradient[k] * get(weights.linear[k] + p * C3 + c);
            sum = get(image.third + p * C3 + c) <= 0 ? floats{} : sum;
            put(image.third_gradient.pixel(p / LOW, p % LOW) + c, sum);
            put(sums + B3 + c, get(sums + B3 + c) + sum);
        }

    // Third layer: the same convolution with turned weights. The pooling sends each gradient to the pixel it came from.
    for (int y = 0; y < LOW; y++) {
        alignas(64) float row[LOW][C2];
        convolve_row<C3, C2, LOW>(image.third_gradient.row(y), weights.third_back, row);
        for (int x = 0; x < LOW; x++)
            for (int c = 0; c < C2; c += LANES) {
                const ints place = get_place(image.second_place + (y * LOW + x) * C2 + c);
                const floats all = get(&row[x][c]);
                for (int s = 0; s < 4; s++)
                    put(image.second_gradient.pixel(2 * y + s / 2, 2 * x + s % 2) + c, place == s ? all : floats{});
                put(sums + B2 + c, get(sums + B2 + c) + (place == 4 ? floats{} : all));
            }
    }

    // Second layer.
    for (int y = 0; y < MID; y++)
        convolve_row<C2, C1, MID>(image.second_gradient.row(y), weights.second_back,
                                  (float(*)[C1])(image.first_gradient + y * MID * C1));

    // First layer: nothing lies before it, so the gradients of its weights are summed up here.
    for (int c = 0; c < C1; c += LANES) {
        floats sum[TAPS + 1] = {};
        for (int y = 0; y < MID; y++)
            for (int x = 0; x < MID; x++) {
                const floats all = get(image.first_gradient + (y * MID + x) * C1 + c);
                const ints place = get_place(image.first_place + (y * MID + x) * C1 + c);
                floats part[4];
#pragma GCC unroll 4
                for (int s = 0; s < 4; s++) part[s] = place == s ? all : floats{};
#pragma GCC unroll 9
                for (int t = 0; t < TAPS; t++)
#pragma GCC unroll 4
                    for (int s = 0; s < 4; s++)
                        sum[t] += part[s] * image.input[2 * y + s / 2 + t / 3][2 * x + s % 2 + t % 3];
                sum[TAPS] += place == 4 ? floats{} : all;
            }
        for (int t = 0; t <= TAPS; t++) {
            float *to = sums + (t < TAPS ? W1 + t * C1 : B1) + c;
            put(to, get(to) + sum[t]);
        }
    }
}

// Neighbouring pixels of a row as units: for bf16 the pairs that begin at even columns of the bordered row, then those
// that begin at odd ones; for float the pixels as they are.
template <int SIZE, int CHANNELS> struct Pairs {
    static constexpr int COUNT = (SIZE + STEP - 1) / STEP;  // units in a row without its borders
    static constexpr int ROW = (COUNT + 1) * CHANNELS;
    alignas(64) unit value[STEP][SIZE + 2][ROW];
    void fill(const Bordered<SIZE, CHANNELS> &from) {
        for (int parity = 0; parity < STEP; parity++)
            for (int y = 0; y < SIZE + 2; y++)
                for (int j = 0; j < COUNT + 1; j++)
                    for (int c = 0; c < CHANNELS; c += LANES) {
                        const real *at = from.row(y) + (STEP * j + parity) * CHANNELS + c;
                        unit *to = value[parity][y] + j * CHANNELS + c;
                        if constexpr (STEP == 1) store(to, load<words>(at));
                        else {
                            const words one = __builtin_convertvector(load<halves>(at), words);
                            const words next = __builtin_convertvector(load<halves>(at + CHANNELS), words);
                            store(to, one | next << 16);
                        }
                    }
    }
    const unit *at(int y, int x) const { return value[x % STEP][y] + x / STEP * CHANNELS; }  // x: with the border
};

struct Group {
    Image image[GROUP];
    Pairs<MID, C1> first[GROUP];
    Pairs<LOW, C2> second[GROUP];
    Pairs<MID, C2> second_gradient[GROUP];
    Pairs<LOW, C3> third_gradient[GROUP];
};

// The weight gradient of a convolution's tap over a group of images, for some inputs and VECTORS of outputs, in
// registers; added to `to` where that is begun.
template <int INPUTS, int SIZE, int IN, int OUT>
static inline void tap_gradient(const Pairs<SIZE, IN> *in, const Pairs<SIZE, OUT> *gradient, int count, bool begun,
                                int t, int i, int o, float *to) {
    constexpr int VS = VECTORS<OUT>;
    floats sum[INPUTS][VS];
#pragma GCC unroll 8
    for (int r = 0; r < INPUTS; r++)
        for (int v = 0; v < VS; v++) sum[r][v] = begun ? get(to + r * OUT + v * LANES) : floats{};
    for (int n = 0; n < count; n++)
        for (int y = 0; y < SIZE; y++) {
            const unit *from = in[n].at(y + t / 3, t % 3) + i, *g = gradient[n].at(y + 1, 1) + o;
            for (int j = 0; j < Pairs<SIZE, IN>::COUNT; j++, from += IN, g += OUT) {
                words lanes[VS];
                for (int v = 0; v < VS; v++) lanes[v] = load<words>(g + v * LANES);
#pragma GCC unroll 8
                for (int r = 0; r < INPUTS; r++)
                    for (int v = 0; v < VS; v++) sum[r][v] = add_products(sum[r][v], lanes[v], from[r]);
            }
        }
#pragma GCC unroll 8
    for (int r = 0; r < INPUTS; r++)
        for (int v = 0; v < VS; v++) put(to + r * OUT + v * LANES, sum[r][v]);
}

// All of it, as [tap, input, output].
template <int SIZE, int IN, int OUT>
static void weight_gradient(const Pairs<SIZE, IN> *in, const Pairs<SIZE, OUT> *gradient, int count, bool begun,
                            float *sums) {
    for (int t = 0; t < TAPS; t++)
        for (int o = 0; o < OUT; o += VECTORS<OUT> * LANES)
            in_parts<IN>([=](auto i, auto inputs) {
                tap_gradient<inputs>(in, gradient, count, begun, t, i, o, sums + (t * IN + i) * OUT + o);
            });
}

static void linear_gradient(const Image *image, int count, bool begun, float *sums) {
    for (int f = 0; f < LOW * LOW * C3; f += LANES) {
        floats sum[CLASSES];
        for (int k = 0; k < CLASSES; k++) sum[k] = begun ? get(sums + W4 + k * LOW * LOW * C3 + f) : floats{};
        for (int n = 0; n < count; n++) {
            const floats value = get(image[n].third + f);
#pragma GCC unroll 10
            for (int k = 0; k < CLASSES; k++) sum[k] += image[n].logits[k] * value;
        }
        for (int k = 0; k < CLASSES; k++) put(sums + W4 + k * LOW * LOW * C3 + f, sum[k]);
    }
    for (int n = 0; n < count; n++)
        for (int k = 0; k < CLASSES; k++) sums[B4 + k] += image[n].logits[k];
}

// The sums of all blocks, `LANES` at a time, brought from the loops' order into that of the vector of parameters.
struct Total {
    const float *sums;
    int blocks;
    void operator()(long at, float *to, long stride) const {
        floats sum = {};
        for (int b = 0; b < blocks; b++) sum += get(sums + b * PARAMETERS + at);
        for (int l = 0; l < LANES; l++) to[l * stride] = sum[l];
    }
};

template <int IN, int OUT>
static void unpack(const Total &total, long weight, long bias, float *gradient, int part) {
    for (int row = IN * TAPS * part / PARTS; row < IN * TAPS * (part + 1) / PARTS; row++) {
        const int t = row / IN, i = row % IN;
        for (int o = 0; o < OUT; o += LANES)
            total(weight + (t * IN + i) * OUT + o, gradient + weight + (o * TAPS + t) * IN + i, TAPS * IN);
    }
    if (part == 0)
        for (int o = 0; o < OUT; o += LANES) total(bias + o, gradient + bias + o, 1);
}

static void unpack_part(const float *sums, int blocks, float *gradient, int part) {
    const Total total = {sums, blocks};
    unpack<1, C1>(total, W1, B1, gradient, part);
    unpack<C1, C2>(total, W2, B2, gradient, part);
    unpack<C2, C3>(total, W3, B3, gradient, part);
    for (int k = CLASSES * part / PARTS; k < CLASSES * (part + 1) / PARTS; k++) {
        for (int p = 0; p < LOW * LOW; p++)
            for (int c = 0; c < C3; c += LANES)
                total(W4 + (k * LOW * LOW + p) * C3 + c, gradient + W4 + (k * C3 + c) * LOW * LOW + p, LOW * LOW);
        gradient[B4 + k] = 0;
        for (int b = 0; b < blocks; b++) gradient[B4 + k] += sums[b * PARAMETERS + B4 + k];
    }
}

static thread_local Group group;  // zero at first, and its borders always

extern "C" void gather(const uint8_t *images, const int64_t *index, long count, float mean, float scale, float *inputs,
                       int threads) {
    pool.share(threads, PARTS, [=](int part) {
        for (long n = count * part / PARTS; n < count * (part + 1) / PARTS; n++)
            for (int p = 0; p < SIDE * SIDE; p++)
                inputs[n * SIDE * SIDE + p] = (images[index[n] * SIDE * SIDE + p] - mean) * scale;
    });
}

extern "C" void logits(const real *parameters, const float *inputs, long count, float *out, int threads) {
    pool.share(threads, PARTS, [=](int part) { pack_part(parameters, part); });
    pool.share(threads, (count + GROUP - 1) / GROUP, [=](int piece) {
        const long end = (piece + 1L) * GROUP < count ? (piece + 1L) * GROUP : count;
        for (long n = (long)piece * GROUP; n < end; n++) {
            forward(inputs + n * SIDE * SIDE, group.image[0]);
            memcpy(out + n * CLASSES, group.image[0].logits, sizeof group.image[0].logits);
        }
    });
}

// One block of a batch: the sums of its gradients, its loss and its number of right predictions.
static void step_block(const float *inputs, const int64_t *labels, float smoothing, long count, int block, int blocks,
                       float *sum, float *loss, int64_t *right) {
    const long begin = count * block / blocks, end = count * (block + 1) / blocks;
    const auto zero = [=](long at, long size) { memset(sum + at, 0, size * sizeof(float)); };
    zero(W1, W2 - W1), zero(B2, C2), zero(B3, C3), zero(B4, CLASSES);  // the rest is begun by the first group
    if (begin == end) zero(0, PARAMETERS);
    for (long start = begin; start < end; start += GROUP) {
        // Each image forward and backward while it is in the cache.
        const int size = end - start < GROUP ? end - start : GROUP;
        for (int n = 0; n < size; n++) {
            Image &image = group.image[n];
            int is_correct;
            forward(inputs + (start + n) * SIDE * SIDE, image);
            *loss += cross_entropy(image.logits, labels[start + n], smoothing, 1.0f / count, &is_correct);
            *right += is_correct;
            backward(image, sum);
            group.first[n].fill(image.first);
            group.second[n].fill(image.second);
            group.second_gradient[n].fill(image.second_gradient);
            group.third_gradient[n].fill(image.third_gradient);
        }

        // The gradients of the large weights, of all images of the group at once.
        weight_gradient(group.first, group.second_gradient, size, start > begin, sum + W2);
        weight_gradient(group.second, group.third_gradient, size, start > begin, sum + W3);
        linear_gradient(group.image, size, start > begin, sum);
    }
}

// Into how many blocks a batch is cut: a function of its size alone.
extern "C" int num_blocks(long count) {
    return count < LEAST_BLOCKS * BLOCK ? LEAST_BLOCKS : count < MOST_BLOCKS * BLOCK ? count / BLOCK : MOST_BLOCKS;
}

extern "C" void step(const real *parameters, const float *inputs, const int64_t *labels, float smoothing, long count,
                     float *sums, float *gradient, float *loss, int64_t *num_correct, int threads) {
    const int blocks = num_blocks(count);
    float losses[MOST_BLOCKS] = {};
    int64_t right[MOST_BLOCKS] = {};

    // The weights into the order of the loops; each block of the batch; the blocks' sums into one gradient.
    pool.share(threads, PARTS, [=](int part) { pack_part(parameters, part); });
    pool.share(threads, blocks, [&](int block) {
        float *sum = sums + block * PARAMETERS;
        step_block(inputs, labels, smoothing, count, block, blocks, sum, losses + block, right + block);
    });
    pool.share(threads, PARTS, [=](int part) { unpack_part(sums, blocks, gradient, part); });

    // In the order of the blocks, so that the result does not depend on the threads.
    float total = 0;
    *num_correct = 0;
    for (int block = 0; block < blocks; block++) total += losses[block], *num_correct += right[block];
    *loss = total / count;
}
