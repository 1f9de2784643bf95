"""The decoder again, from its definition and not from its code: NumPy, float64, one head and one query at a time."""

import numpy as np


def logits_LxV(params, c, token_L, keep=lambda x: x):
    """Logits after each token of one text; `keep` rounds whatever a lower precision would store."""

    def kernel(name, tree):
        return keep(np.asarray(tree[name], np.float64))

    def norm(x, tree):
        centre = x.mean(-1, keepdims=True) if c.norm == "layer" else 0.0
        spread = np.sqrt(((x - centre) ** 2).mean(-1, keepdims=True) + c.norm_eps)
        return keep((x - centre) / spread * np.asarray(tree["gain"], np.float64))

    def turn(x_LxK):
        pairs = x_LxK[:, : c.head_width // 2] + 1j * x_LxK[:, c.head_width // 2 :]
        inverse = c.inverse_wavelengths or [c.rope_theta ** (-2 * i / c.head_width) for i in range(c.head_width // 2)]
        pairs = pairs * np.exp(1j * np.arange(len(x_LxK))[:, None] * np.asarray(inverse))
        return keep(np.concatenate([pairs.real, pairs.imag], -1))

    def attention(x_LxD, tree):
        q, k, v = (keep(x_LxD @ kernel(name, tree)) for name in ("query", "key", "value"))
        if c.qk_norm and not c.qk_norm_per_head:
            q, k = norm(q, tree["query_norm"]), norm(k, tree["key_norm"])
        mixed = []
        for head in range(c.heads):
            group = head // (c.heads // c.groups)
            q_LxK = q[:, head * c.head_width :][:, : c.head_width]
            k_LxK, v_LxK = (x[:, group * c.head_width :][:, : c.head_width] for x in (k, v))
            if c.qk_norm_per_head:
                q_LxK, k_LxK = norm(q_LxK, tree["query_norm"]), norm(k_LxK, tree["key_norm"])
            q_LxK, k_LxK = keep(turn(q_LxK) * c.head_width**-0.5), turn(k_LxK)
            rows = []
            for t in range(len(token_L)):
                score = k_LxK[: t + 1] @ q_LxK[t]
                weight = np.exp(score - score.max())
                rows.append(keep(keep(keep(weight) @ v_LxK[: t + 1]) / weight.sum()))
            mixed.append(np.stack(rows))
        return keep(np.concatenate(mixed, -1) @ kernel("out", tree))

    def ffn(x_LxD, tree):
        gate, up = keep(x_LxD @ kernel("gate", tree)), keep(x_LxD @ kernel("up", tree))
        return keep(keep(keep(gate / (1 + np.exp(-gate))) * up) @ kernel("down", tree))

    x_LxD = kernel("embedding", params)[np.asarray(token_L)]
    for depth in range(c.layers):
        block = params[f"block_{depth}"]
        x_LxD = keep(x_LxD + attention(norm(x_LxD, block["attention_norm"]), block["attention"]))
        x_LxD = keep(x_LxD + ffn(norm(x_LxD, block["ffn_norm"]), block["ffn"]))
    table = kernel("embedding", params).T if c.tied_embeddings else kernel("output", params)
    return norm(x_LxD, params["norm"]) @ table
