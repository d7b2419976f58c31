#!/usr/bin/env python3
"""vocabularies.py PROGRAM WORK SHARED [MODEL.gguf...]: the tokens of texts, by this project and by the libraries that tokenizers come from.

PROGRAM: interop-vocabularies. WORK: where vocabularies go that are trained on WikiText-2 with the packages tokenizers and sentencepiece. SHARED: data, and
the binding of llama.cpp, which finds its libraries through LLAMA_BINS. Each vocabulary is compared with the library that made it, and as GGUF with
llama.cpp; those of the named models with llama.cpp only. Texts: WikiText-2 whole and by lines, odd ones, and random ones. Prints what differs; exit status 1
where that is not known."""
import ctypes
import json
import os
import random
import struct
import subprocess
import sys
import unicodedata

sys.path.pop(0)  # a file beside this one is called as a package
import numpy
import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, processors, trainers
from tokenizers import pre_tokenizers as cuts

program, work, shared = sys.argv[1:4]
wiki = shared + '/data/eval/wiki.test.raw'
sys.path.insert(0, shared + '/tools/llamacpp')
import llamacpp

llama3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
tekken = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
          r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
space, bytes_ = '\u2581', [f'<0x{byte:02X}>' for byte in range(256)]

odd = ['', ' ', '  ', '   ', 'a', ' a', '  a  b   c ', '\n', '\n\n\n  x', '\t\tx\ty', 'a\r\nb\r\n\r\nc', 'caf\u00e9 na\u00efve \u00c9COLE',
       '\u4f60\u597d\uff0c\u4e16\u754c\u3002 \u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8 \ud55c\uad6d\uc5b4', '\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f',
       '1 12 123 1234 12345 1234567.89 3,000 \u0663\u0664 \u00bd \u2167', "I'M YOU'RE we'll THEY'VE he'd it's DON'T 'tis 's", '$100 (now) <b>x</b> a_b_c __init__ foo.bar() != == /* */ http://x.y/z?a=b',
       'x' * 300, ' ' * 70, 'a' + ' ' * 40 + 'b', '\n' * 40, '<0x0A> <0x41>', '\u00a0x\u2003y\u3000z\u200bw', '\u0915\u094d\u0937 \u0e44\u0e17\u0e22 \u0639\u0631\u0628\u064a \u05e2\u05d1\u05e8',
       '\ufffd \u0000end', '\U00020000\U0002a6d6 \u16a0\u16a1', 'camelCase HTTPServer aBC', 'end.\n\n \n  next', 'a \n b', 'tab\t\n\tend',
       'Hello<|im_start|>user\nHi<|im_end|>\n<|endoftext|> there <bos>x<eos> <s> </s> <unk> <start_of_turn>user<end_of_turn>', 'x<tool> y<left>z  <left>  w<right>  v \n<right>\n u<|im_end|>']
# On these some library differs by intention.
visible, marks, capitals, invalid = f'{space}a {space}{space}b', 'e\u0301le\u0301ve A\u0300 \u212b', '\u00e9ABC \u00c9ABC \u01c5x \u0915\u094d\u0937', b'a\xff\xc3(\xe4\xbd b\x80\x80 \xf0\x9f\x98'


def random_texts(count, seed=0):
    draw = random.Random(seed)
    alphabets = ["abcXYZ'  \n.,09", " \t\r\n\u00a0", "the and of in'sSTLl ", "\u00e4\u00f6\u00fc\u00df\u0416\u0436\u4e2d\u6587\u3042 ", "0123456789 .,-", "".join(map(chr, range(33, 127))), "<|im_end>tool/s_ ", '\U0001f600\U0001f44d\u2764\ufe0f\u200d a']
    return [''.join(draw.choice(draw.choice(alphabets)) for _ in range(draw.randrange(1, 60))) for _ in range(count)]


def byte_level(name):
    split = lambda pattern: cuts.Sequence([cuts.Split(Regex(pattern), 'isolated'), cuts.ByteLevel(add_prefix_space=False, use_regex=False)])
    gpt2 = cuts.ByteLevel(add_prefix_space=False)
    all_bytes, whole = name != 'smollm', name in ('llama3', 'tekken')
    tokenizer = tokenizers.Tokenizer(models.BPE(ignore_merges=whole))
    if name == 'qwen2': tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = {'gpt2': gpt2, 'smollm': cuts.Sequence([cuts.Digits(individual_digits=True), gpt2]), 'llama3': split(llama3),
                               'qwen2': split(llama3.replace('{1,3}', '')), 'tekken': split(tekken)}[name]
    specials = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|eot_id|>']
    trainer = trainers.BpeTrainer(vocab_size=12000, special_tokens=specials, initial_alphabet=cuts.ByteLevel.alphabet() if all_bytes else [], show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    tokenizer.add_tokens([AddedToken('<tool>', normalized=False), AddedToken('<left>', lstrip=True, normalized=False), AddedToken('<right>', rstrip=True, normalized=False)])
    if whole:
        template = '<|im_start|> $A' + (' <|im_end|>' if name == 'tekken' else '')
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[('<|im_start|>', 1), ('<|im_end|>', 2)])
    tokenizer.decoder = decoders.ByteLevel()
    return json.loads(tokenizer.to_str())


def pieces(name):
    replace, prepend = dict(type='Replace', pattern=dict(String=' '), content=space), dict(type='Prepend', prepend=space)
    metaspace = lambda scheme: dict(type='Metaspace', replacement=space, prepend_scheme=scheme, split=False)
    normalizer = {'llama2': dict(type='Sequence', normalizers=[prepend, replace]), 'gemma': replace, 'no bytes': replace}.get(name)
    cut = {'mistral': metaspace('first'), 'metaspace': metaspace('always'), 'gemma': dict(type='Split', pattern=dict(String=' '), behavior='MergedWithPrevious', invert=False)}.get(name)
    trained = tokenizers.Tokenizer(models.BPE(unk_token='<unk>'))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend(space), normalizers.Replace(' ', space)])
    trained.pre_tokenizer = cuts.Metaspace(prepend_scheme='never')
    specials, fallback = ['<unk>', '<s>', '</s>'], name != 'no bytes'
    trained.train_from_iterator([text], trainers.BpeTrainer(vocab_size=12000, special_tokens=specials + bytes_ * fallback, limit_alphabet=200, show_progress=False))
    added = [dict(id=token, content=content, special=True, single_word=False, lstrip=False, rstrip=False, normalized=False) for token, content in enumerate(specials)]
    begin = dict(type='TemplateProcessing', single=[{'SpecialToken': dict(id='<s>', type_id=0)}, {'Sequence': dict(id='A', type_id=0)}], pair=[],
                 special_tokens={'<s>': dict(id='<s>', ids=[1], tokens=['<s>'])})
    model = json.loads(trained.to_str())['model']
    model.update(byte_fallback=fallback, fuse_unk=True)
    return dict(version='1.0', truncation=None, padding=None, added_tokens=added, normalizer=normalizer, pre_tokenizer=cut, post_processor=begin, decoder=None, model=model)


def sentence_pieces(path, kind, fallback):
    sentencepiece.SentencePieceTrainer.train(input=wiki, model_prefix=path.removesuffix('.model'), vocab_size=8000, model_type=kind, byte_fallback=fallback, normalization_rule_name='identity', num_threads=1,
                                             remove_extra_whitespaces=not fallback, character_coverage=.999, user_defined_symbols=['<tool>', space * 4] if fallback else [], minloglevel=2)


def run(*arguments, texts=()):
    done = subprocess.run([program, *arguments], input=''.join(one.hex() + '\n' for one in texts), capture_output=True, text=True)
    if done.returncode: return None, done.stderr.strip()
    lines = [line.split('\t')[0] for line in done.stdout.split('\n')[:-1]]
    return [[int(token) for token in line.split()] for line in lines], done.stderr.strip()


class Llama:
    """A vocabulary in llama.cpp."""
    def __init__(self, path):
        self.library = llamacpp.lib()
        parameters = self.library.llama_model_default_params()
        parameters.vocab_only, parameters.n_gpu_layers = True, 0
        self.model = self.library.llama_model_load_from_file(path.encode(), parameters)
        if not self.model: raise RuntimeError(f'llama.cpp refuses {path}: {self.library.errors[-3:]}')
        self.vocabulary = self.library.llama_model_get_vocab(self.model)

    def encode(self, text, special):
        tokens = numpy.zeros(len(text) + 16, numpy.int32)
        return tokens[:self.library.llama_tokenize(self.vocabulary, text, len(text), tokens.ctypes.data, len(tokens), True, special)].tolist()

    def ends(self):
        return [token for token in range(self.library.llama_vocab_n_tokens(self.vocabulary)) if self.library.llama_vocab_is_eog(self.vocabulary, token)]


def lacking(file):
    """The texts with characters that a vocabulary lacks."""
    tokens, spelled = json.load(open(file))['model']['vocab'], cuts.ByteLevel(add_prefix_space=False, use_regex=False)
    return [one for one in all_texts if any(not spelled.pre_tokenize_str(character)[0][0][0] in tokens for character in set(one.decode()) if ord(character) < 128)]


failures = 0


def compare(name, texts, ours, theirs, known=()):
    """`known`: the texts that may differ."""
    global failures
    differ = [index for index in range(len(texts)) if ours[index] != theirs[index]]
    unknown = [index for index in differ if texts[index] not in known]
    failures += bool(unknown)
    print(f'{name:44} {len(texts) - len(differ):6} of {len(texts)} texts, {sum(map(len, ours)):8} tokens' + (f', {len(differ) - len(unknown)} known to differ' if len(differ) > len(unknown) else ''))
    for index in unknown[:5]:
        a, b = ours[index], theirs[index]
        at = next((i for i, pair in enumerate(zip(a, b)) if pair[0] != pair[1]), min(len(a), len(b)))
        print(f'    DIFFERS: {texts[index][:60]!r} at {at}: {a[at - 1:at + 5]}, theirs {b[at - 1:at + 5]}')


def check_in_llama(name, model, *arguments, gguf=None, known=()):
    run(model, *arguments)  # which may write the file
    llama, texts = Llama(gguf or model), all_texts + [invalid]
    for special in (False, True):
        ours, message = run(model, *arguments, *([] if special else ['--plain']), texts=texts)
        compare(f'{name} in llama.cpp{", special" * special}', texts, ours[:-1], [llama.encode(one, special) for one in texts], {invalid, *known})
    print(f'    {message}')
    expected = llama.ends()
    if sorted(ours[-1]) != expected: failed(f'{name}: ends {sorted(ours[-1])}, in llama.cpp {expected}')


def failed(message):
    global failures
    failures += 1
    print('    DIFFERS:', message)


def path(name):
    return os.path.join(work, name)


text = open(wiki, 'rb').read().decode()
all_texts = [one.encode() for one in [text, *text.split('\n'), *odd, visible, marks, capitals, *random_texts(2000)]]
visible, marks, capitals = visible.encode(), marks.encode(), capitals.encode()
os.makedirs(path('model'), exist_ok=True)
header = json.dumps({'w': dict(dtype='F32', shape=[2, 2], data_offsets=[0, 16])}).encode().ljust(80)
with open(path('model/model.safetensors'), 'wb') as out: out.write(struct.pack('<Q', len(header)) + header + bytes(16))
with open(path('model/config.json'), 'w') as out: out.write('{"model_type": "llama"}')

for model in sys.argv[4:]:
    # llama.cpp looks for user-defined spaces before it makes U+2581 one.
    check_in_llama(os.path.basename(model), model, known=[visible])

for name in ['gpt2', 'smollm', 'llama3', 'qwen2', 'tekken', 'llama2', 'mistral', 'metaspace', 'gemma', 'no bytes']:
    file, is_bytes = path(name + '.json'), name in ('gpt2', 'smollm', 'llama3', 'qwen2', 'tekken')
    if not os.path.exists(file):
        with open(file, 'w') as out: json.dump(byte_level(name) if is_bytes else pieces(name), out)
    # Texts are taken to be in the normalization form that is asked for; case is known of ASCII only, as in llama.cpp.
    known = {'qwen2': [marks], 'tekken': [capitals] + [one for one in all_texts if any(unicodedata.category(character)[0] == 'M' for character in one.decode())]}.get(name, [])
    # tokenizers leaves bytes without a token out before it merges, this project and llama.cpp after.
    if name == 'smollm': known = lacking(file)
    library = tokenizers.Tokenizer.from_file(file)
    ours, message = run(path('model'), file, '--gguf', path('vocabulary.gguf'), texts=all_texts)
    if ours is None:
        # Merges that no scores can say.
        print(f'{name:44} not as GGUF: {message[:150]}')
        ours, message = run(path('model'), file, texts=all_texts)
        gguf = None
    else: gguf = path('vocabulary.gguf')
    compare(f'{name} in tokenizers', all_texts, ours[:-1], [library.encode(one.decode()).ids for one in all_texts], known)
    strips = [one for one in all_texts if b'<left>' in one or b'<right>' in one]
    if gguf: check_in_llama(name, path('model'), file, gguf=gguf, known=strips)

for kind, fallback in [('bpe', True), ('bpe', False), ('unigram', True), ('unigram', False)]:
    name = kind + ' with bytes' * fallback
    file = path(name + '.model')
    if not os.path.exists(file): sentence_pieces(file, kind, fallback)
    library, lines = sentencepiece.SentencePieceProcessor(model_file=file), all_texts[1:]  # its scores are sums in 32 bits, too coarse for the whole text
    ours, message = run(path('model'), file, '--plain', texts=lines)
    # In a unigram model of sentencepiece user-defined tokens compete with others.
    spaces = [one for one in lines if b'    ' in one or one.startswith(b'   ')]
    compare(f'{name} in sentencepiece', lines, ours[:-1], [[1] + library.encode(one.decode()) for one in lines], spaces if kind == 'unigram' else [])
    # llama.cpp puts a space behind control and user-defined tokens, too, and ahead of a text after it has looked for them.
    known = [visible] + spaces + [one for one in lines if b'<tool>' in one or b'<s>' in one]
    if kind == 'bpe' and fallback: check_in_llama(name, path('model'), file, '--gguf', path('vocabulary.gguf'), gguf=path('vocabulary.gguf'), known=known)

print(f'{failures} unknown differences')
sys.exit(failures > 0)
