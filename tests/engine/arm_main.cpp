// One step of the kernels, from a file of parameters, images and labels to a file of the gradient, the loss and the logits:
// for a processor that has no torch here.

#include "kernels.cpp"

#include <cstdio>
#include <vector>

int main(int, char **names) {
    const long count = atol(names[3]);
    std::vector<real> parameters(PARAMETERS);
    std::vector<float> inputs(count * SIDE * SIDE), sums(num_blocks(count) * PARAMETERS), gradient(PARAMETERS), out(count * CLASSES);
    std::vector<int64_t> labels(count);
    FILE *file = fopen(names[1], "rb");
    fread(parameters.data(), sizeof(real), parameters.size(), file);
    fread(inputs.data(), sizeof(float), inputs.size(), file);
    fread(labels.data(), sizeof(int64_t), labels.size(), file);
    fclose(file);
    float loss;
    int64_t num_correct;
    step(parameters.data(), inputs.data(), labels.data(), 0.1f, count, sums.data(), gradient.data(), &loss, &num_correct, 2);
    logits(parameters.data(), inputs.data(), count, out.data(), 2);
    file = fopen(names[2], "wb");
    fwrite(gradient.data(), sizeof(float), gradient.size(), file);
    fwrite(&loss, sizeof loss, 1, file);
    fwrite(out.data(), sizeof(float), out.size(), file);
    fclose(file);
}
