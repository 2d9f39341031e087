"""The fusion models once more, in plain NumPy float64, from the equations: what `fuse` is tested against.

One sample at a time, time-major. A masked frame is left out of every sum by indexing, where `fuse` zeroes it.
Weights come from a state dictionary; nothing of `fuse` is imported.
"""

import numpy as np

TRIO = ("visual", "audio", "text")
L2_BEFORE = {"dca", "rjca", "ca"}  # features scaled to unit length
L2_BEHIND = {"grjca", "hgrjca"}  # encoded features scaled to unit length


class Weights:
    """A state dictionary as float64 arrays, read by prefix."""

    def __init__(self, state, prefix=""):
        self.state, self.prefix = state, prefix

    def __getitem__(self, name):
        return np.asarray(self.state[self.prefix + name], np.float64)

    def __contains__(self, name):
        return self.prefix + name in self.state

    def at(self, name):
        return Weights(self.state, f"{self.prefix}{name}.")

    def linear(self, name, x):
        y = x @ self[f"{name}.weight"].T
        return y + self[f"{name}.bias"] if f"{name}.bias" in self else y


def relu(x):
    return np.maximum(x, 0)


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def keep(x, v):
    out = np.zeros_like(x)
    out[v] = x[v]
    return out


# ---- encoders ----------------------------------------------------------------------------------------------


def causal_conv(w, x, dilation):
    """y[t] = b + Σ_k W_k x[t − (4 − k)·dilation], W = g v / ‖v‖ per output channel."""
    g, v = w["conv.parametrizations.weight.original0"], w["conv.parametrizations.weight.original1"]
    kernel = g * v / np.sqrt((v**2).sum((1, 2), keepdims=True))
    y = np.zeros((len(x), len(kernel))) + w["conv.bias"]
    for t in range(len(x)):
        for k in range(5):
            source = t - (4 - k) * dilation
            if source >= 0:
                y[t] += kernel[:, :, k] @ x[source]
    return y


def tcn(w, x):
    i = 0
    while f"blocks.{i}.first.conv.bias" in w:
        b = w.at(f"blocks.{i}")
        y = leaky(causal_conv(b.at("first"), x, 2**i))
        y = leaky(causal_conv(b.at("second"), y, 2**i))
        skip = b.linear("skip", x) if "skip.bias" in b else x
        x = leaky(y + skip)
        i += 1
    return x


def batch_norm(w, xs, vs, train):
    """xs: one (time, width) per sample. In training, the statistics of the valid frames of the batch."""
    if train:
        rows = np.concatenate([x[v] for x, v in zip(xs, vs, strict=True)])
        mean, variance = rows.mean(0), rows.var(0)
    else:
        mean, variance = w["running_mean"], w["running_var"]
    return [(x - mean) / np.sqrt(variance + 1e-5) * w["weight"] + w["bias"] for x in xs]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_direction(w, suffix, x, h, c):
    out = np.zeros((len(x), len(h)))
    for t in range(len(x)):
        z = w[f"weight_ih_{suffix}"] @ x[t] + w[f"bias_ih_{suffix}"]
        z = z + w[f"weight_hh_{suffix}"] @ h + w[f"bias_hh_{suffix}"]
        i, f, g, o = np.split(z, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out[t] = h
    return out


def bilstm(w, x):
    start, y = w["start"], x  # h0 of layer 0 forward, 0 backward, 1 forward, 1 backward; then c0
    for layer in range(2):
        forward = lstm_direction(w.at("rnn"), f"l{layer}", y, start[2 * layer], start[4 + 2 * layer])
        back = lstm_direction(
            w.at("rnn"), f"l{layer}_reverse", y[::-1], start[2 * layer + 1], start[5 + 2 * layer]
        )
        y = np.concatenate([forward, back[::-1]], -1)
    return unit(w.linear("linear", np.concatenate([x, y], -1)))


# ---- attention ---------------------------------------------------------------------------------------------


def joint_attention(w, x, v, *, name, variant, attention):
    """One recursion for one sample: x {m: (time, d_m)}, v {m: (time,)} → x of the next recursion."""
    released, after = variant == "released", {}
    for m in x:
        members = [o for o in x if name != "rcma" or o != m]
        J = np.concatenate([x[o] for o in members], -1)
        if not (name == "rjcma" and released):
            J = w.linear(f"fc.{m if name == 'rcma' else 'all'}", J)
        joint = np.any([v[o] for o in members], 0)  # frames that exist in J
        X, own = x[m], v[m]
        Wj, Wc, Wh = (w[f"{k}.{m}.weight"] for k in ("W_j", "W_c", "W_h"))
        bj, bc, bh = (w[f"{k}.{m}.bias"] if released else 0 for k in ("W_j", "W_c", "W_h"))
        if attention == "channel":
            K = X[own].T @ Wj[:, own].T + bj  # (d_m, time): every output time from the valid input times
            C = np.tanh(K[:, joint] @ J[joint] / np.sqrt(J.shape[1]))
            H = (X @ Wc.T + bc) @ C
        else:
            C = np.tanh((X[own] @ Wj.T + bj) @ J[joint].T / np.sqrt(J.shape[1]))  # (own, joint)
            Q = (X[own].T @ Wc[:, own].T + bc)[:, own]  # W_c mixes time; only own frames are asked on
            H = Q @ C  # (d_m, joint)
        H = relu(np.tanh(H)) if released else relu(H)
        update = H @ Wh.T + bh if attention == "channel" else (H @ Wh[:, joint].T + bh).T
        after[m] = keep(X + (relu(update) if released else update), own)
    return after


def jca(w, x, v):
    J, after = np.concatenate(list(x.values()), -1), {}
    for m, X in x.items():
        C = np.tanh(X.T @ w[f"W_j.{m}.weight"] @ J / np.sqrt(J.shape[1]))
        H = relu(X.T @ w[f"W_m.{m}.weight"].T + C @ w[f"W_c.{m}.weight"].T)
        after[m] = keep(X + (H @ w[f"W_h.{m}.weight"].T).T, v[m])
    return after


def ca(w, x, v):
    (first, X_v), (second, X_a) = x.items()
    Z = X_a @ w["W"] @ X_v.T

    def attend(X, valid, Z):
        if not valid.any():
            return np.zeros_like(X)
        A = softmax(Z[valid], 0)  # down the columns, over the frames that exist
        return keep(np.tanh(X + (X[valid].T @ A).T), valid)

    return {first: attend(X_v, v[first], Z.T), second: attend(X_a, v[second], Z)}


def lfan(w, x, v):
    time, out = len(next(iter(v.values()))), []
    for t in range(time):
        present = [m for m in x if v[m][t]]
        qkv = {m: w.linear(f"qkv.{m}", x[m][t]).reshape(2, 3, 16) for m in present}  # heads, (q, k, v), 16
        values = np.zeros((2, len(x), 16))
        for h in range(2):
            for i, m in enumerate(x):
                if m in present:
                    a = softmax(np.array([qkv[m][h, 0] @ qkv[o][h, 1] / 4 for o in present]))
                    values[h, i] = (
                        sum(p * qkv[o][h, 2] for p, o in zip(a, present, strict=True)) + qkv[m][h, 2]
                    )
        y = w.linear("project", values.reshape(-1))
        y = (y - y.mean()) / np.sqrt(y.var() + 1e-5) * w["norm.weight"] + w["norm.bias"]
        out.append(np.concatenate([next(iter(x.values()))[t], y]))
    return np.array(out)


def trailing_mean(x, v, frames):
    out = np.zeros_like(x)
    for t in range(len(x)):
        last = slice(max(0, t - frames + 1), t + 1)
        if v[last].any():
            out[t] = x[last][v[last]].mean(0)
    return out


def mean_of_predictions(x, v, targets):
    """Of every frame: the mean over all that any modality that is there says of each target."""
    out = np.zeros((len(next(iter(v.values()))), targets))
    for t in range(len(out)):
        if said := [x[m][t].reshape(-1, targets) for m in x if v[m][t]]:
            out[t] = np.concatenate(said).mean(0)
    return out


def gate(w, query, candidates):
    weights = softmax(w.linear("score", query) / 0.1)
    return relu(sum(weights[:, i : i + 1] * c for i, c in enumerate(candidates)))


def gated(w, kind, steps):
    if kind == "dca":
        return gate(w.at("gate"), steps[-1], [steps[0], steps[-1]])
    if kind == "grjca":
        return gate(w.at("gate"), steps[-1], [steps[0], steps[-2], steps[-1]])
    G = [gate(w.at(f"inner.{i - 1}"), steps[i], steps[: i + 1]) for i in range(1, len(steps))]
    return gate(w.at("outer"), steps[-1], G)


# ---- the whole ---------------------------------------------------------------------------------------------


def head(w, name, fused, vs, train):
    if name == "mean":
        return fused
    if name.startswith("linear"):
        return [w.linear("outer.0", f) for f in fused]
    if name in ("rcma", "lfan"):
        return [np.tanh(w.linear("outer.0", f)) for f in fused]
    if name in ("rjca", "dca"):
        n = sum(f"outer.{i}.bias" in w for i in range(9))
        return [
            np.concatenate([w.linear(f"outer.{i}", relu(w.linear(f"inner.{i}", f))) for i in range(n)], -1)
            for f in fused
        ]
    hidden = [w.linear("inner.0", f) for f in fused]
    if name in ("jca", "ca"):
        return [w.linear("outer.0", h) for h in hidden]
    hidden = batch_norm(w.at("norm"), hidden, vs, train)
    return [np.tanh(w.linear("outer.0", leaky(h))) for h in hidden]


def forward(config, state, features, mask, train=False):
    """Arrays: features {m: (batch, time, width)}, mask {m: (batch, time)} → (batch, time, targets)."""
    w, name, window = Weights(state), config["name"], config["window"]
    modalities = [m for m in TRIO if m in features]
    batch, time = next(iter(mask.values())).shape
    pad = window - time
    v = [{m: np.pad(mask[m][b], (0, pad)) for m in modalities} for b in range(batch)]
    x = [
        {m: keep(np.pad(features[m][b], ((0, pad), (0, 0))), v[b][m]) for m in modalities}
        for b in range(batch)
    ]
    for m in modalities:
        e, xs = w.at(f"encoders.{m}"), [s[m] for s in x]
        vs = [s[m] for s in v]
        if name in L2_BEFORE:
            xs = [unit(s) for s in xs]
        if config["encoder"] == "tcn":
            xs = batch_norm(e.at("norm"), [tcn(e, s) for s in xs], vs, train)
        elif config["encoder"] == "bilstm":
            xs = [bilstm(e, s) for s in xs]
        elif config["encoder"] == "linear":
            xs = [s @ e["weight"].T + e["bias"] for s in xs]
        if name in L2_BEHIND:
            xs = [unit(s) for s in xs]
        for b in range(batch):
            x[b][m] = keep(xs[b], vs[b])
    fused, anywhere = [], []
    for b in range(batch):
        steps = [x[b]]
        for i in range(config["recursions"]):
            block = w.at(f"blocks.{0 if config['tied'] else i}")
            if name == "jca":
                steps.append(jca(block, steps[-1], v[b]))
            elif name == "ca":
                steps.append(ca(block, steps[-1], v[b]))
            else:
                how = {"name": name, "variant": config["variant"], "attention": config["attention"]}
                steps.append(joint_attention(block, steps[-1], v[b], **how))
        last = dict(steps[-1])
        if config["gates"] != "none":
            last = {m: gated(w.at(f"gates.{m}"), config["gates"], [s[m] for s in steps]) for m in modalities}
        anywhere.append(np.any([v[b][m] for m in modalities], 0))
        if name == "lfan":
            fused.append(lfan(w.at("fusion"), last, v[b]))
        elif name.startswith("linear"):
            frames = int(w["fusion.frames"])
            fused.append(np.concatenate([trailing_mean(last[m], v[b][m], frames) for m in modalities], -1))
        elif name == "mean":
            fused.append(mean_of_predictions(last, v[b], len(config["target"])))
        else:
            fused.append(np.concatenate([last[m] for m in modalities], -1))
            if name in ("rjca", "dca"):
                fused[-1] = keep(bilstm(w.at("fusion"), fused[-1]), anywhere[-1])
    return np.array(head(w.at("head"), name, fused, anywhere, train))[:, :time]
