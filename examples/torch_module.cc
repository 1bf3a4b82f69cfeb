// Copyright 2026 The nearfield authors.
// SPDX-License-Identifier: Apache-2.0
//
// PyTorch from C++: a layer learns to blur a picture, each pixel from the 5 x 5 around it. Saves weights
// that Python reads: nearfield.NeighborhoodAttention2D(16, 2, 5).load_state_dict(torch.load("blur.pt")).
#include <torch/optim/adam.h>

#include <cstdio>

#include "nearfield/torch.h"

int main() {
  torch::manual_seed(0);
  nearfield::NeighborhoodAttention2D layer(16, 2, 5);  // channels, heads, window
  torch::optim::Adam optimizer(layer->parameters(), torch::optim::AdamOptions(0.01));
  const at::Tensor picture = torch::randn({1, 16, 16, 16});  // [batch, height, width, channels]
  const at::Tensor blurred = at::avg_pool2d(picture.permute({0, 3, 1, 2}), 3, 1, 1).permute({0, 2, 3, 1});
  for (int step = 0; step <= 50; ++step) {
    optimizer.zero_grad();
    const at::Tensor loss = at::mse_loss(layer(picture), blurred);
    loss.backward();
    optimizer.step();
    if (step % 25 == 0) std::printf("step %d: loss %.4f\n", step, loss.item<double>());
  }
  nearfield::save_state_dict(*layer, "blur.pt");
  return 0;
}
