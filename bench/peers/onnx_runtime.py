# Copyright 2026 The nearfield authors.
# SPDX-License-Identifier: Apache-2.0
"""onnxruntime's CPU provider, where it and onnx are installed: one MultiHeadAttention, dense, float32."""

from __future__ import annotations

import torch

from . import Absent, Peer


class OnnxRuntime(Peer):
    name = "onnxruntime"
    has_backward = False

    @classmethod
    def candidates(cls, problem):
        if not problem.dense or problem.causal or problem.dtype != torch.float32:
            raise Absent("dense float32 only")
        if problem.heads != problem.kv_heads:
            raise Absent("shared key/value heads")
        try:
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
        except ImportError as missing:
            raise Absent(f"{missing.name} is not installed") from None
        return [{}]

    def to_own(self, x, of_query):
        return x.flatten(1, -3).flatten(2)  # [B, N, H * D]

    def from_own(self, x, of_query):
        return x.unflatten(2, (self.problem.heads, -1))

    def load(self, query, key, value, grad_out):
        import onnxruntime
        from onnx import TensorProto, helper

        super().load(query, key, value, grad_out)

        def info(name, shape):
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        names = ("query", "key", "value")
        node = helper.make_node(
            "MultiHeadAttention", names, ["out"], domain="com.microsoft", num_heads=self.problem.heads
        )
        shapes = [list(x.shape) for x in self.inputs]
        graph = helper.make_graph(
            [node], "attention", list(map(info, names, shapes)), [info("out", shapes[0][:2] + shapes[2][2:])]
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.feed = {name: x.numpy() for name, x in zip(names, self.inputs, strict=True)}
        return self

    def forward(self):
        return torch.from_numpy(self.session.run(None, self.feed)[0])
