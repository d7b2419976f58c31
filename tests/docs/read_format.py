#!/usr/bin/python3
"""read_format.py FORMAT.md FILE [FLOATS]: every matrix of a file in cafeq's format, decoded with numpy by what
docs/reference/format.md says alone (the tables of the trellis are read from it), and compared with the tensors of
FLOATS, a safetensors file that the library has written of the same model."""
import json, re, sys
try:
    import numpy as np
except ImportError:
    sys.exit(77)

TYPES = {'F16': '<f2', 'F32': '<f4', 'F64': '<f8', 'U8': 'u1', 'I8': 'i1', 'I64': '<i8'}


def safetensors(path):
    data = open(path, 'rb').read()
    size = int.from_bytes(data[:8], 'little')
    header, tensors = json.loads(data[8:8 + size]), {}
    metadata = header.pop('__metadata__', {})
    for name, t in header.items():
        begin, end = t['data_offsets']
        tensors[name] = np.frombuffer(data[8 + size + begin:8 + size + end], TYPES[t['dtype']]).reshape(t['shape'])
    return metadata, tensors


def unpack(rows, bits, count):
    """Codes of `bits` bits, least significant first."""
    flat = np.unpackbits(rows, axis=-1, bitorder='little')[..., :count * bits]
    return flat.reshape(*flat.shape[:-1], count, bits) @ (1 << np.arange(bits))


def grid(d, part):
    codes, (rows, cols), group = unpack(part['codes'], d['bits'], d['cols']), (d['rows'], d['cols']), d['group']
    spread = lambda p: np.broadcast_to(np.repeat(p.astype(float), group if group > 0 else cols, 1)[:, :cols], (rows, cols))
    s = spread(part['scales'])
    if d['grid'] == 'affine': return s * codes + spread(part['offsets'])
    if d['grid'] == 'midrise': return s * (codes - 2**(d['bits'] - 1) + .5)
    if d['grid'] == 'symmetric': return s * (codes - 2**(d['bits'] - 1))
    return s * (codes - spread(part['zeros']))


def trellis(d, part, text):
    L, rate, lines, length = d['window'], d['rate'], d['rows'], d['cols']
    columns = d['sequence'].endswith('column')
    if columns: lines, length = length, lines
    def scales(name, count):
        codes = unpack(part[name + '_codes'], d['scale_bits'], count)
        return np.where(codes == 2**d['scale_bits'] - 1, 0, np.exp(d[name + '_base'] - codes * d[name + '_step']))
    band = next(b for b in ('16 to 31', '32 to 47', '48 to 63', '64 to 80') if int(b[:2]) <= rate <= int(b[-2:]))
    m, levels, unit = re.search(rf'\| {L} \| {band} \| (\d+) \| (\d+) \| ([\d.]+) \|', text).groups()
    T = np.array(re.search(rf'T for `window` {L}, `rate` {band}:\n\n```text\n([\d\s]+)```', text)[1].split(), float)
    K = min(lines, max(1, (lines * length + 4096) // 8192)) if d['sequence'] == 'rows' else lines
    X, at = np.empty((lines, length)), 0
    for k in range(K):
        begin, end = k * lines // K, (k + 1) * lines // K
        n = (end - begin) * length
        B = max(n * rate // 16, -(-16 * L // rate) * rate // 16)
        bits = np.unpackbits(part['codes'][at:at + -(-B // 8)])
        at += -(-B // 8)
        starts = np.arange(n) * rate // 16
        q = bits[(starts[:, None] + np.arange(L)) % B] @ (1 << np.arange(L)[::-1])
        h = q * int(m) % 2**16 // 256
        i = np.where(h >= 128, h - 128, 127 - h) * int(levels) // 128
        X[begin:end] = (np.where(h >= 128, 1, -1) * T[i] * float(unit)).reshape(-1, length)
    X *= scales('scale', lines)[:, None]
    if d['sequence'] == 'scaled_column': X *= scales('row_scale', length)
    return X.T if columns else X


def prime_power(q):
    p = next((p for p in range(2, q + 1) if q % p == 0), 0)
    k = next((k for k in range(1, 20) if p**k >= q), 0)
    return (p, k) if p and p**k == q else None


def conference(q):
    """[[0, 1], [+-1, chi(a - b)]] for the elements of GF(q)."""
    (p, k), r, powers = prime_power(q), 0, []
    digits = lambda a: np.array([a // p**i % p for i in range(k)])
    number = lambda c: int(c @ p**np.arange(k))
    while len(set(powers)) < q - 1:  # until x^k = r makes a field that x generates
        r, powers = r + 1, [1]
        while len(powers) < q - 1:
            c = digits(powers[-1])
            powers.append(number((np.append(0, c[:-1]) + c[-1] * digits(r)) % p))
            if powers[-1] in (0, 1): break
    chi = np.zeros(q)
    chi[powers[::2]], chi[powers[1::2]] = 1, -1
    C = np.ones((q + 1, q + 1))
    C[1:, 0] = 1 if q % 4 == 1 else -1
    C[1:, 1:] = [[chi[number((digits(a) - digits(b)) % p)] for b in range(q)] for a in range(q)]
    C[0, 0] = 0
    return C


def core(m, text):
    """H_m, or nothing."""
    if m == 1: return np.ones((1, 1))
    if m % 4 or m > 1024: return None
    if prime_power(m - 1): return conference(m - 1) + np.eye(m)
    if m % 8 == 4 and prime_power(m // 2 - 1):
        C = conference(m // 2 - 1)
        return np.kron(C, [[1, 1], [1, -1]]) + np.kron(np.eye(m // 2), [[1, -1], [-1, -1]])
    row = re.search(rf'\| {m} \| (\w+) \| (\w+) \| (\w+) \| (\w+) \|', text)
    if not row: return None
    lag = np.abs(np.subtract.outer(np.arange(m // 4), np.arange(m // 4)))
    lag = np.minimum(lag, m // 4 - lag)
    A, B, C, D = (np.where((lag > 0) & (int(hex, 16) >> np.maximum(lag - 1, 0) & 1 == 1), -1, 1) for hex in row.groups())
    return np.block([[A, B, C, D], [-B, A, -D, C], [-C, D, A, -B], [-D, -C, B, A]])


def signs(n, seed):
    bits = []
    for i in range(-(-n // 128)):
        c, k = [i & 0xffffffff, i >> 32, 0x308a2015, 0xdbf80e4f], [seed & 0xffffffff, seed >> 32]
        for _ in range(10):
            a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [b >> 32 ^ c[1] ^ k[0], b & 0xffffffff, a >> 32 ^ c[3] ^ k[1], a & 0xffffffff]
            k = [(k[0] + 0x9E3779B9) & 0xffffffff, (k[1] + 0xBB67AE85) & 0xffffffff]
        bits += [c[j // 32] >> j % 32 & 1 for j in range(128)]
    return 1 - 2. * np.array(bits[:n])


def inverse(factor, part, n, text):
    """M^-1 of one factor."""
    if factor['kind'] == 'diagonal': return np.diag(1 / (part['diagonal'].astype(float) * 2.**factor['exponent']))
    N, at, taken = np.zeros((n, n)), 0, 0
    for size in factor['sizes']:
        block = N[at:at + size, at:at + size]
        if factor['kind'] == 'block_diagonal':
            q = part['inverse'][taken:taken + size * size].reshape(size, size)
            block[:] = q * 2.**(factor['base'] - part['inverse_exponents'][at:at + size] / 8)
            taken += size * size
        else:
            m = size // (size & -size)
            while (H := core(m, text)) is None: m *= 2
            while len(H) < size: H = np.kron(H, [[1, 1], [1, -1]])
            block[:] = H.T / np.sqrt(size)
        at += size
    if factor['kind'] == 'block_diagonal': return N
    return N * signs(n, factor['seed']) if factor['sizes'] else np.eye(n)


def decode(d, part, text):
    X = trellis(d, part, text) if d['grid'] == 'trellis' else grid(d, part)
    if d['side'] == 'output': X = X.T
    for factor in reversed(d['transform']): X = X @ inverse(factor, part, X.shape[1], text)
    return 2.**d['exponent'] * (X if d['side'] == 'input' else X.T)


if __name__ == '__main__':
    text = open(sys.argv[1], encoding='utf-8').read()
    metadata, tensors = safetensors(sys.argv[2])
    floats = safetensors(sys.argv[3])[1] if len(sys.argv) > 3 else {}
    places, worst = json.loads(metadata.get('cafeq.places', '{}')), 0
    matrices = json.loads(metadata['cafeq.matrices'])
    for name, d in matrices.items():
        part = {key[len(name) + 1:]: t for key, t in tensors.items() if key.startswith(name + '.')}
        W, place = decode(d, part, text), places.get(name, {'tensor': name, 'begin': 0, 'transposed': False})
        if not floats: continue
        T = floats[place['tensor']][place['slice']] if 'slice' in place else floats[place['tensor']]
        T = (T.T if place['transposed'] else T)[place['begin']:place['begin'] + d['rows']]
        worst = max(worst, np.abs(W - T).max() / np.abs(T).max())
    print(f'{len(matrices)} matrices, largest difference {worst:.1e} of the largest weight')
    sys.exit(int(worst > 1e-5))
