"""Files as tokenizers writes them, of the kinds that a GGUF file can say."""
import collections
import re
import struct

llama3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def special(token, name):
    return dict(id=token, content=name, special=True, single_word=False, lstrip=False, rstrip=False, normalized=False)


def begins_with(name, token):
    return dict(type='TemplateProcessing', single=[{'SpecialToken': dict(id=name, type_id=0)}, {'Sequence': dict(id='A', type_id=0)}], pair=[],
                special_tokens={name: dict(id=name, ids=[token], tokens=[name])})


def pieces(path):
    """llama2.c's tokenizer file as pieces with visible spaces: each is merged in every way that it can be, the best scores first."""
    content, tokens, at = open(path, 'rb').read(), [], 4
    while at < len(content):
        score, size = struct.unpack_from('<fi', content, at)
        tokens.append((content[at + 8:at + 8 + size].decode().replace(' ', '\u2581'), score))
        at += 8 + size
    for token, name in enumerate(['<unk>', '<s>', '</s>']): tokens[token] = (name, 0)
    vocabulary = {piece: token for token, (piece, _) in enumerate(tokens)}
    merges = []
    for piece, score in sorted(tokens[259:], key=lambda item: -item[1]):
        merges += [[piece[:cut], piece[cut:]] for cut in range(1, len(piece)) if piece[:cut] in vocabulary and piece[cut:] in vocabulary]
    normalizers = [dict(type='Prepend', prepend='\u2581'), dict(type='Replace', pattern=dict(String=' '), content='\u2581')]
    return dict(added_tokens=[special(i, tokens[i][0]) for i in range(3)], normalizer=dict(type='Sequence', normalizers=normalizers), pre_tokenizer=None,
                post_processor=begins_with('<s>', 1), model=dict(type='BPE', unk_token='<unk>', byte_fallback=True, vocab=vocabulary, merges=merges))


def visible_bytes():
    shown, following = {}, 256
    for byte in range(256):
        visible = 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte
        shown[byte] = chr(byte if visible else following)
        following += not visible
    return shown


def byte_level(lines, cuts, **options):
    """Bytes as visible characters, and the 200 most frequent merges of words."""
    shown = visible_bytes()
    words = collections.Counter(re.findall(r' ?[A-Za-z]+|[0-9]+| ?[^\sA-Za-z0-9]+|\s+', '\n'.join(lines)))
    words = {tuple(shown[byte] for byte in word.encode()): count for word, count in words.items()}
    vocabulary = {character: token for token, character in enumerate(shown.values())}
    merges = []
    for _ in range(200):
        counts = collections.Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]): counts[pair] += count
        left, right = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append([left, right])
        vocabulary.setdefault(left + right, len(vocabulary))
        words = {merged(word, left, right): count for word, count in words.items()}
    begin = len(vocabulary)
    return dict(added_tokens=[special(begin, '<|begin|>')], normalizer=None, pre_tokenizer=dict(type='Sequence', pretokenizers=cuts),
                post_processor=begins_with('<|begin|>', begin), model=dict(type='BPE', vocab=vocabulary, merges=merges, **options))


def merged(word, left, right):
    result = []
    for piece in word:
        if result and (result[-1], piece) == (left, right): result[-1] += piece
        else: result.append(piece)
    return tuple(result)


def kinds(path, lines):
    digits = dict(type='Digits', individual_digits=True)
    split = dict(type='Split', pattern=dict(Regex=llama3), behavior='Isolated', invert=False)
    level = lambda regex: dict(type='ByteLevel', add_prefix_space=False, trim_offsets=True, use_regex=regex)
    yield 'of pieces', pieces(path)
    yield 'gpt-2', byte_level(lines, [level(True)])
    yield 'smollm', byte_level(lines, [digits, level(True)])
    yield 'llama-bpe', byte_level(lines, [split, level(False)], ignore_merges=True)
    yield 'dbrx', byte_level(lines, [split, level(False)])
