# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""OpenVINO's CPU plugin, where it is installed: one ScaledDotProductAttention, dense, float32."""

from __future__ import annotations

import torch

from . import Absent, Peer


class OpenVino(Peer):
    name = "openvino"
    has_backward = False

    @classmethod
    def candidates(cls, problem):
        if not problem.dense or problem.causal or problem.dtype != torch.float32:
            raise Absent("dense float32 only")
        try:
            import openvino  # noqa: F401
        except ImportError:
            raise Absent("openvino is not installed") from None
        return [{}]

    def to_own(self, x, of_query):
        return x.flatten(1, -3).transpose(1, 2)

    def from_own(self, x, of_query):
        return x.transpose(1, 2)

    def load(self, query, key, value, grad_out):
        import openvino
        from openvino import opset13

        super().load(query, key, value, grad_out)
        parameters = [opset13.parameter(list(x.shape), openvino.Type.f32) for x in self.inputs]
        model = openvino.Model([opset13.scaled_dot_product_attention(*parameters)], parameters, "sdpa")
        options = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
        for i, x in enumerate(self.inputs):
            self.request.set_input_tensor(i, openvino.Tensor(x.numpy(), shared_memory=True))
        return self

    def forward(self):
        self.request.infer()
        return torch.from_numpy(self.request.get_output_tensor(0).data)
