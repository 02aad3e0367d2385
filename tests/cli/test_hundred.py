"""A newcomer's hundred: inputs that are wrong or odd, what each ends in, and the words that must stand in what is said.

The list was written before anybody looked at what the commands said. All run in one folder, the shelf; what is refused
(exit code 2) must leave it as it was, so that the corrected command is not refused in turn.
"""

import gzip
import json
import os
import pickle
import shlex
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from headstart.cli.commands import main
from headstart.data import check, decode, images
from headstart.training.loop import Loop
from headstart.use.load import Run
from tests.data.pictures import folder
from tests.shapes import photos, run

__all__ = ["photos", "run"]

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea423c2713d436b5ee50593a9640e0018c\nsize 46830571\n"
HTML = "<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>no, not here</body></html>\n"

PRETRAIN = "pretrain photos --out r"

CASES: list[tuple[str, int, list[str]]] = [
    # Commands and what they cannot do without.
    ("pretrian photos --out r", 2, ["pretrian", "pretrain"]),
    ("study photos", 2, ["study plan", "study run"]),
    ("study rnu smoke --out r", 2, ["study run"]),
    ("--verison", 2, ["--version"]),
    ("''", 2, ["--help"]),
    ("list", 2, ["WHAT"]),
    ("list backbone", 2, ["backbones"]),
    ("list Probes", 2, ["probes"]),
    ("doctor now", 2, ["now"]),
    ("demo --device tpu", 2, ["tpu", "cuda"]),
    ("demo --device cuda:7", 2, ["cuda:7"]),
    ("demo --threads 0", 2, ["threads is 0", "at least 1"]),
    ("pretrain", 2, ["--out"]),
    ("pretrain photos", 2, ["--out"]),
    ("pretrain --out r", 2, ["DATA", "folder"]),
    # DATA.
    ("pretrain phtos --out r", 2, ["phtos", "perhaps you meant photos"]),
    ("pretrain empty --out r", 2, ["empty", "no pictures"]),
    ("pretrain texts --out r", 2, ["texts", "no pictures"]),
    ("pretrain q.txt --out r", 2, ["q.txt"]),
    ("pretrain page.csv --out r", 2, ["page.csv", "HTML"]),
    ("pretrain binary.csv --out r", 2, ["binary.csv"]),
    ("pretrain zero.csv --out r", 2, ["zero.csv", "empty"]),
    ("pretrain headers.csv --out r", 2, ["headers.csv", "names no pictures"]),
    ("pretrain broken.zip --out r", 2, ["broken.zip"]),
    ("pretrain bare.zip --out r", 2, ["bare.zip", "no pictures"]),
    ("pretrain lfs.zip --out r", 2, ["lfs.zip", "LFS"]),
    ("pretrain line.npy --out r", 2, ["line.npy", "(N, "]),
    ("pretrain objects.npz --out r", 2, ["objects.npz, labels", "Python objects"]),
    ("pretrain pickled.npz --out r", 2, ["pickled.npz", "a pickle"]),
    ("pretrain none.npy --out r", 2, ["none.npy", "no pictures", "(0, 8, 8, 3)"]),
    ("pretrain floats.npy --out r", 2, ["floats.npy", "uint8", "float64"]),
    ("pretrain locked.zip --out r", 2, ["locked.zip", "6 pictures", "encrypted"]),
    ("pretrain cut.tar --out r", 2, ["cut.tar", "no whole tar"]),
    ("pretrain squeezed.tar --out r", 2, ["squeezed.tar", "uncompress"]),
    ("pretrain text.parquet --out r", 2, ["text.parquet", "parquet"]),
    ("check outside.zip", 0, ["6 pictures", "cat", "dog"]),
    ("pretrain photos photos --out r", 2, ["photos", "twice"]),
    ("pretrain one --out r", 2, ["1 readable picture:"]),
    ("pretrain cifar10 --out r", 2, ["cifar10:ROOT"]),
    ("pretrain cifar11:photos --out r", 2, ["cifar11", "cifar10"]),
    ("pretrain cifar10:photos --out r", 2, ["cifar10", "photos"]),
    ("pretrain https://example.org/photos.zip --out r", 2, ["https://example.org/photos.zip", "download"]),
    ("pretrain photos --out photos", 2, ["photos"]),
    ("pretrain photos --out q.png", 2, ["q.png", "file"]),
    ("check 'photos/*.png'", 2, ["photos/*.png"]),
    ("check photos --json empty", 2, ["empty", "folder"]),
    ("check photos --data.labels wrong.csv", 2, ["wrong.csv", "none is a picture of DATA"]),
    ("check photos --data.labels nowhere.csv", 2, ["nowhere.csv"]),
    ("check photos --data.labels photos", 2, ["photos", "CSV"]),
    # Odd, and right.
    ("check q.png", 0, ["1 picture"]),
    ("check 写真", 0, ["6 pictures"]),
    ("check -- -dash", 0, ["6 pictures"]),
    ("check ./-dash", 0, ["6 pictures"]),
    ("check 'with space'", 0, ["6 pictures", "'with space'"]),
    ("check semicolon.csv", 0, ["6 pictures", "cat", "dog"]),
    ("check utf16.csv", 2, ["utf16.csv", "UTF-8"]),
    ("check latin.csv", 2, ["latin.csv", "UTF-8"]),
    ("check zeros", 0, ["6 pictures", "empty"]),
    ("check DIGITS", 2, ["digits"]),
    # Settings out of range, of the wrong type, mistyped, contradictory.
    (f"{PRETRAIN} --contrastive.epochs 0", 2, ["contrastive.epochs", "0"]),
    (f"{PRETRAIN} --contrastive.epochs=-3", 2, ["contrastive.epochs", "-3"]),
    (f"{PRETRAIN} --contrastive.epochs ten", 2, ["contrastive.epochs", "ten"]),
    (f"{PRETRAIN} --contrastive.epochs 2.5", 2, ["contrastive.epochs", "2.5"]),
    (f"{PRETRAIN} --contrastive.batch-size 1", 2, ["contrastive.batch-size", "2"]),
    (f"{PRETRAIN} --contrastive.batch-size 5000", 2, ["batch-size", "5000", "42"]),
    (f"{PRETRAIN} --contrastive.temperature 0", 2, ["contrastive.temperature", "greater than 0"]),
    (f"{PRETRAIN} --contrastive.lr nan", 2, ["contrastive.lr", "nan"]),
    (f"{PRETRAIN} --contrastive.lr inf", 2, ["contrastive.lr", "inf"]),
    (f"{PRETRAIN} --contrastive.lr 0,1", 2, ["contrastive.lr", "0,1"]),
    (f"{PRETRAIN} --head.init autoencodr", 2, ["autoencodr", "autoencoder"]),
    (f"{PRETRAIN} --head.activaton relu", 2, ["--head.activation"]),
    (f"{PRETRAIN} --head.frozen no", 2, ["no", "--head.no-frozen"]),
    (f"{PRETRAIN} --head.no-frozen --head.unfreeze-at 0.5", 2, ["unfreeze-at", "frozen"]),
    (f"{PRETRAIN} --augment.crop-scale 1.0 0.08", 2, ["augment.crop-scale", "smallest"]),
    (f"{PRETRAIN} --augment.flip 50", 2, ["augment.flip", "50"]),
    (f"{PRETRAIN} --augment.blur-kernel 4", 2, ["augment.blur-kernel", "odd"]),
    (f"{PRETRAIN} --data.size 4", 2, ["data.size", "8"]),
    (f"{PRETRAIN} --data.limit 100%", 2, ["data.limit", "100%"]),
    (f"{PRETRAIN} --device gpu", 2, ["gpu", "cuda"]),
    (f"{PRETRAIN} --device cuda:99", 2, ["cuda:99"]),
    (f"{PRETRAIN} --threads 0", 2, ["threads", "0"]),
    (f"{PRETRAIN} --precision fp16", 2, ["fp16", "bfloat16"]),
    (f"{PRETRAIN} --probe.names linaer", 2, ["linaer", "linear"]),
    (f"{PRETRAIN} --loggers tensorbord", 2, ["tensorboard"]),
    (f"{PRETRAIN} --preset papr", 2, ["papr", "paper"]),
    (f"{PRETRAIN} --preset adapt", 2, ["backbone.weights"]),
    (f"{PRETRAIN} --max-seconds=-5", 2, ["max-seconds", "-5"]),
    (f"{PRETRAIN} --overwrite --extend", 2, ["overwrite", "extend"]),
    (f"{PRETRAIN} --plugin no_such_module_of_mine", 2, ["no_such_module_of_mine"]),
    (f"{PRETRAIN} --plugin ../mine", 2, ["'../mine'", "my_module"]),
    (f"{PRETRAIN} --plugin mine.py", 2, ["mine.py", "my_module"]),
    (f"{PRETRAIN} --plugin plugin_folder", 2, ["plugin_folder", "a folder"]),
    (f"{PRETRAIN} --plugin plugin_lacks", 2, ["plugin_lacks", "imports no_such_module_of_mine", "install"]),
    (f"{PRETRAIN} --plugin plugin_wrong", 2, ["plugin_wrong", "ZeroDivisionError", "line 2"]),
    (f"{PRETRAIN} --plugin plugin_torn", 2, ["plugin_torn", "SyntaxError", "plugin_torn.py"]),
    (f"{PRETRAIN} --plugin plugin_twice", 2, ["plugin_twice", "relu is registered already"]),
    ("pretrain photos --out run", 2, ["run", "--overwrite"]),
    (f"{PRETRAIN} --config nowhere.yaml", 2, ["nowhere.yaml"]),
    (f"{PRETRAIN} --config tabs.yaml", 2, ["tabs.yaml", "line 2"]),
    (f"{PRETRAIN} --config listed.yaml", 2, ["listed.yaml", "section"]),
    (f"{PRETRAIN} --config unknown.yaml", 2, ["unknown.yaml", "hiden_dim", "hidden_dim"]),
    (f"{PRETRAIN} --config photos", 2, ["photos is a folder; give a file"]),
    # Networks and weights.
    (f"{PRETRAIN} --backbone.name resnet35", 2, ["resnet35", "resnet34"]),
    (f"{PRETRAIN} --backbone.name ResNet-18", 2, ["ResNet-18", "resnet18"]),
    (f"{PRETRAIN} --backbone.name vit_b_16 --data.size 40", 2, ["vit_b_16", "40"]),
    (f"{PRETRAIN} --backbone.name vgg11 --backbone.stem cifar", 2, ["vgg11", "cifar"]),
    (f"{PRETRAIN} --backbone.weights typo.pth", 2, ["typo.pth"]),
    (f"{PRETRAIN} --backbone.weights junk.pt", 2, ["junk.pt"]),
    (f"{PRETRAIN} --backbone.weights lfs.pt", 2, ["lfs.pt", "LFS"]),
    (f"{PRETRAIN} --backbone.weights page.pt", 2, ["page.pt", "HTML"]),
    (f"{PRETRAIN} --backbone.weights photos", 2, ["photos", "run"]),
    (f"{PRETRAIN} --backbone.weights run --backbone.name resnet34", 2, ["run holds a resnet18", "--backbone.name"]),
    (f"{PRETRAIN} --autoencoder.weights run", 2, ["run", "autoencoder"]),
    # Evaluating.
    ("evaluate run --data phtos", 2, ["perhaps you meant photos"]),
    ("evaluate run phtos", 2, ["perhaps you meant photos"]),
    ("evaluate run photos --data photos", 2, ["DATA once", "--data photos"]),
    ("evaluate torchvision:resnet18 photos", 2, ["--out"]),
    ("evaluate photos", 2, ["photos", "run"]),
    ("evaluate run --size 3", 2, ["size", "8"]),
    ("evaluate run --weights imagenet", 2, ["--weights"]),
    ("evaluate torchvision:resnet18", 2, ["--data"]),
    ("evaluate torchvision:resnet18 --data photos", 2, ["--out"]),
    ("evaluate torchvision:resnt18 --data photos --out x.json", 2, ["resnt18", "resnet18"]),
    ("evaluate resnet18 --data photos --out x.json", 2, ["torchvision:resnet18"]),
    # Using a run.
    ("embed rnu photos --out x.npz", 2, ["rnu", "perhaps you meant run"]),
    ("embed run", 2, ["--out"]),
    ("embed run photos --out e.txt", 2, [".npz", ".parquet"]),
    ("embed unfinished photos --out x.npz", 2, ["unfinished holds no finished run", "the command that began it"]),
    (
        "export unfinished --format timm --out x.pt",
        2,
        ["unfinished holds no finished run", "the command that began it"],
    ),
    ("embed photos photos --out x.npz", 2, ["photos holds no run", "headstart pretrain"]),
    ("check run", 2, ["run holds a run, not pictures"]),
    ("pretrain unfinished --out r", 2, ["unfinished holds a run, not pictures"]),
    ("embed run clf --out x.npz", 2, ["clf holds a classifier, not pictures"]),
    ("evaluate run study", 2, ["study holds a study, not pictures"]),
    ("embed torn photos --out x.npz", 2, ["torn/result.json"]),
    ("embed nobackbone photos --out x.npz", 2, ["backbone.safetensors"]),
    ("embed q.png photos --out x.npz", 2, ["q.png"]),
    ("embed run photos --out x.npz --device cuda:x", 2, ["cuda:x"]),
    ("search run photos --query nowhere.png", 2, ["nowhere.png"]),
    ("search run photos --query q.txt", 2, ["q.txt"]),
    ("search run photos --query empty", 2, ["empty", "no pictures"]),
    ("search e.npz --query nowhere.png --query q.png", 2, ["nowhere.png"]),
    ("search e.npz --query q.png --query photos/ring/01.png --threads 1", 0, ["most like q.png", "most like 01.png"]),
    ("search run --query q.png photos/ring/01.png", 2, ["photos/ring/01.png", "DATA", "--query photos/ring/01.png"]),
    ("search run", 2, ["search needs --query PICTURE"]),
    ("search run photos --query q.png --top 0", 2, ["top", "0"]),
    ("search run photos --query q.png --out s.gif", 2, ["s.gif", ".png"]),
    ("search e.npz --query q.png --top 100000 --threads 1", 0, ["60"]),
    ("select run photos -n 0", 2, ["n", "0"]),
    ("select run photos -n three", 2, ["three"]),
    ("select run photos -n 3 --similarity 2", 2, ["similarity", "2"]),
    ("select e.npz -n 3 --out q.png", 2, ["q.png"]),
    ("select e.npz -n 100000", 2, ["100000", "60"]),
    ("map junk.npz --out m", 2, ["junk.npz"]),
    ("map run one --out m --threads 1", 0, ["1 picture,"]),
    ("finetune run one --out c", 2, ["1 "]),
    ("finetune run oneclass --out c", 2, ["one class"]),
    ("finetune run photos --out c --labels 50", 2, ["labels", "50"]),
    ("finetune run photos --out c --labels 0.5 --per-class 3", 2, ["headstart: labels is 0.5; beside per-class"]),
    (
        f"{PRETRAIN} --backbone.name resnet-18 --backbone.weights pretrained",
        2,
        ["torchvision has no classification network 'resnet-18' (perhaps you meant resnet18"],
    ),
    ("finetune run photos --out c --data.labels none", 2, ["label"]),
    ("predict run photos --out p.csv", 2, ["finetune"]),
    ("predict clf empty --out p.csv", 2, ["empty", "no pictures"]),
    ("predict clf photos --out p.xlsx", 2, [".csv"]),
    ("export run --format tensorflow --out x", 2, ["tensorflow", "onnx"]),
    ("export run --format onnx --out x.pt", 2, [".onnx"]),
    ("export run --format torchvision --out empty", 2, ["empty"]),
    # Files that are not there.
    ("select ee.npz -n 3", 2, ["there is no file ee.npz (perhaps you meant e.npz)", "headstart embed"]),
    ("search e.npy.npz --query q.png", 2, ["there is no file e.npy.npz", "a finished run"]),
    ("map nowhere/e.parquet --out m", 2, ["there is no file nowhere/e.parquet;"]),
    ("embed ee.npz", 2, ["there is no file ee.npz"]),
    ("evaluate ee.npz", 2, ["there is no file ee.npz"]),
    ("finetune phtos/e.npz --out c", 2, ["there is no file phtos/e.npz (perhaps you meant photos/e.npz)"]),
    ("export ee.npz --format timm --out x.pt", 2, ["there is no file ee.npz"]),
    ("evaluate rnu.pt --data photos --out x.json", 2, ["there is no file or run rnu.pt", "torchvision:"]),
    ("predict clff photos --out p.csv", 2, ["there is no folder clff (perhaps you meant clf)", "finetune"]),
    ("search run --query qq.png", 2, ["there is no file qq.png (perhaps you meant q.png)"]),
    ("report rnu", 2, ["there is no folder rnu (perhaps you meant run)"]),
    ("study status studdy", 2, ["there is no folder studdy (perhaps you meant study)"]),
    ("study import gone.csv --out s", 2, ["there is no file gone.csv"]),
    ("compare gone.csv --metric a --by b", 2, ["there is no file gone.csv"]),
    ("pretrain photos --config rnu/config.yaml --out r", 2, ["no file rnu/config.yaml (perhaps you meant run/config"]),
    # Results in the place of what they are made from, or among it.
    ("search run photos --query q.png --out photos/sheet.png", 2, ["photos/sheet.png", "inside photos"]),
    ("search e.npz --query q.png --out photos/ring/sheet.jpg", 2, ["inside", "outside"]),
    ("search run photos --query pets --out pets/sheet.png", 2, ["inside pets"]),
    ("search run photos --query q.png --out q.png", 2, ["q.png", "of its own"]),
    ("search run photos --query q.png --out folder.png", 2, ["folder.png", "a folder"]),
    ("select run photos -n 3 --out photos/selection", 2, ["inside photos"]),
    ("select e.npz -n 3 --out photos", 2, ["photos holds other files", "a new folder"]),
    ("map run photos --out photos", 2, ["photos holds other files", "a new folder"]),
    ("finetune run photos --out photos", 2, ["photos holds other files", "no classifier"]),
    ("predict clf semicolon.csv --out semicolon.csv", 2, ["semicolon.csv", "its columns are name, label"]),
    ("embed run packed.npz --out packed.npz", 2, ["packed.npz", "`headstart embed` did not write it"]),
    ("embed run photos --out junk.npz", 2, ["junk.npz", "no file of arrays", "remove it"]),
    ("check semicolon.csv --json semicolon.csv", 2, ["--json semicolon.csv", "of its own"]),
    ("check photos --data.labels wrong.csv --json wrong.csv", 2, ["--json wrong.csv", "of its own"]),
    ("evaluate run --out run/result.json", 2, ["run/result.json", "of its own"]),
    ("evaluate run --out photos", 2, ["photos", "a folder"]),
    ("export run --format torchvision --out run/backbone.safetensors", 2, ["run/backbone.safetensors", "of its own"]),
    ("export clf --format torchvision --out clf/classifier.safetensors", 2, ["classifier.safetensors", "of its own"]),
    ("embed run photos --out pipe.npz", 2, ["pipe.npz", "a device or a pipe"]),
    ("export e.npz --format torchvision --out x.pt", 2, ["e.npz", "it is a file"]),
    ("embed clf photos --out c.npz", 2, ["clf", "a classifier, not a run"]),
    ("evaluate clf", 2, ["clf", "a classifier, not a run"]),
    ("embed study photos --out c.npz", 2, ["study", "one of its runs"]),
    ("search run e.npz --query q.png", 2, ["e.npz", "embeddings, not pictures"]),
    ("search e.npz photos --query q.png", 2, ["e.npz", "leave DATA"]),
    ("search stale.npz --query q.png", 2, ["stale.npz", "other weights"]),
    ("search lost.npz --query q.png", 2, ["lost.npz", "nowhere"]),
    ("select e.npz -n -3", 2, ["-3", "60, all pictures"]),
    ("select e.npz -n 3 --similarity nan", 2, ["similarity", "nan"]),
    ("predict clf e.npz --out p.csv", 2, ["e.npz", "embeddings, not pictures"]),
    ("predict clf q.png --out p.csv --threads 1", 0, ["1 picture:", "1 is unlike"]),
    ("embed run photos --data.size 16 --out z.npz", 2, ["data.size", "32"]),
    (f"{PRETRAIN} --contrastive.objective vicregg", 2, ["vicregg", "'vicreg'"]),
    (f"{PRETRAIN} --contrastive.objective barlow", 2, ["barlow", "--contrastive.lr"]),
    (f"{PRETRAIN} --head.output-init zeros", 2, ["zeros", "output-init"]),
    ("pretrain --config run/config.yaml --out run --extend --contrastive.epochs 1", 2, ["epochs", "2", "1"]),
    ("export run --format hub --out photos --license mit", 2, ["photos", "a new folder"]),
    ("export run --format hub --out h", 2, ["--license", "apache-2.0"]),
    ("study run smoke --data photos --out photos --set contrastive.batch-size=16", 2, ["photos", "no study"]),
    # An attacker's and a careful newcomer's next ones.
    ("pretrain photos --out ''", 2, ["--out is empty"]),
    ("pretrain '' --out r", 2, ["empty", "variable"]),
    ("check photos --data.labels=", 2, ["--data.labels is empty"]),
    ("embed '' photos --out x.npz", 2, ["empty"]),
    ("report ' '", 2, ["empty"]),
    (f"{PRETRAIN} --data.size 100000", 2, ["data.size", "4096"]),
    (f"{PRETRAIN} --head.hidden-dim 10000000000", 2, ["head.hidden-dim", "65536"]),
    (f"{PRETRAIN} --threads 100000", 2, ["threads", "1024"]),
    ("check photos --threads 100000", 2, ["threads", "1024"]),
    (f"{PRETRAIN} --backbone.weights q.png", 2, ["q.png is a picture"]),
    (f"{PRETRAIN} --backbone.weights run/checkpoint.pt", 2, ["for resuming alone", "backbone.safetensors"]),
    (f"{PRETRAIN} --backbone.weights run/config.yaml", 2, ["text, not weights"]),
    (f"{PRETRAIN} --backbone.weights e.npz", 2, ["zip archive of", "not of torch.save"]),
    (f"{PRETRAIN} --autoencoder.weights q.png", 2, ["q.png is a picture"]),
    (f"{PRETRAIN} --data.labels q.png", 2, ["q.png is no text", ".csv"]),
    ("check photos photos/ring", 2, ["photos/ring lies inside photos", "twice"]),
    ("check photos photos/ring/01.png", 2, ["lies inside photos"]),
    ("check photos --data.limit 10", 2, ["data.limit is 10", "leave it out"]),
    ("embed run photos --data.limit 10 --out z.npz", 2, ["data.limit is 10"]),
    ("embed run photos --data.statistics paper --out z.npz", 2, ["data.statistics is paper, but the run has train"]),
    ("search run photos --data.limit 10 --query q.png", 2, ["data.limit is 10"]),
    ("finetune run photos --data.limit 10 --out c", 2, ["data.limit is 10"]),
    ("predict clf photos --data.limit 10 --out p.csv", 2, ["data.limit is 10"]),
    ("predict clf photos --data.size 16 --out p.csv", 2, ["data.size is 16", "32"]),
    ("predict clf/finetune.json photos --out p.csv", 2, ["it is a file"]),
    ("finetune nobackbone photos --out c", 2, ["no backbone"]),
    ("evaluate run --name ../../x", 2, ["--name", "../../x"]),
    ("evaluate run --name a/b", 2, ["--name", "a/b"]),
    ("evaluate run --name .", 2, ["--name"]),
    ("search packed.npz --query q.png", 2, ["packed.npz has no about:"]),
    ("check /dev/zero", 2, ["/dev/zero is no plain file"]),
    ("check s3://bucket/photos", 2, ["address", "download"]),
    ("check caffe.txt", 2, ["caffe.txt", ".csv or .tsv"]),
    ("check indexed.csv", 0, ["6 pictures", "cat", "dog", "number 2 for the picture"]),
    ("check excel.csv", 0, ["6 pictures", "cat", "dog"]),
    ("check ragged.csv", 0, ["6 pictures", "rows 2, 3, 4 and 3 more have more cells"]),
    ("check absolute.csv", 0, ["6 pictures"]),
    ("check pets --data.labels absolute.csv", 0, ["6 in 2 classes; 0 without"]),
    ("check wrong-case", 0, ["Cat", "'Cat' and 'cat'"]),
    ("check parts-in-names", 0, ["classes and the official split", "cat, dog", "test: 2, train: 2"]),
    ("check floors", 0, ["each of cropped/, raw/ holds the same folders cat, dog"]),
    ("check half-labelled", 0, ["test: 2", "train: 4", "unlabelled pictures to train on"]),
    ("check tabled", 0, ["not read: labels.csv", "--data.labels tabled/labels.csv"]),
    ("check linked", 0, ["left out: bird/"]),
    ("check repeated.zip", 0, ["6 pictures", "the last counts"]),
    ("check bzip.zip", 2, ["bzip2", "deflate"]),
    ("check plusminus.npz", 0, ["24 in 2 classes; 0 without"]),
    ("check onehot.npz", 0, ["24 in 2 classes", "one class a column"]),
    ("check named.npz", 0, ["cat", "dog", "array ids not used"]),
    ("check short.npz", 2, ["labels holds 6 labels", "24 pictures"]),
    ("check lone.npz", 2, ["one picture or 16 grey ones"]),
    ("check pixelless.npy", 2, ["without pixels"]),
    # Somebody else's files in the place of results.
    ("predict clf photos --out wrong.csv", 2, ["--out wrong.csv", "its columns are name, label"]),
    ("search e.npz --query q.png --out pets/cat/0.png", 2, ["pets/cat/0.png", "nothing of Headstart"]),
    ("evaluate run --out e.json", 2, ["e.json", "it has no backbones"]),
    ("evaluate torchvision:resnet18 photos --out rows.csv", 2, ["rows.csv", "none that this command writes"]),
    ("check photos --json e.json", 2, ["--json e.json", "it has no pictures"]),
    ("check photos --json junk.pt", 2, ["--json junk.pt", "none that this command writes"]),
    ("export run --format torchvision --out junk.pt", 2, ["junk.pt", "no junk.pt.json beside it"]),
    ("export run --format torchvision --out mine.pt", 2, ["mine.pt.json", "nothing of Headstart"]),
    ("export run --format onnx --out mine.onnx", 2, ["mine.onnx", "nothing of Headstart"]),
    ("embed run photos --out plusminus.npz", 2, ["plusminus.npz", "did not write it"]),
    ("pretrain photos --out texts-and-pictures", 2, ["holds other files (a.doc, b.doc)", "no run", "a new folder"]),
    ("pretrain photos --out .", 2, ["--out . holds other files"]),
    ("pretrain photos --out clf", 2, ["clf holds a classifier, not a run"]),
    ("pretrain photos --out study", 2, ["study holds a study, not a run"]),
    ("pretrain photos --out r.pt", 2, ["r.pt is called as a file", "give r"]),
    ("finetune run photos --out run", 2, ["run holds a run, not a classifier"]),
    ("finetune run photos --out study", 2, ["study holds a study, not a classifier"]),
    ("map e.npz --out m.html", 2, ["m.html is called as a file", "give m"]),
    ("map e.npz --out own-map", 2, ["own-map/map.html", "nothing of Headstart"]),
    ("select e.npz -n 3 --out sheet.png", 2, ["sheet.png is called as a file", "give sheet"]),
    ("compare rows.csv --metric acc --by head --out report.html", 2, ["report.html is called as a file"]),
    ("compare rows.csv --metric acc --by head --out pets", 2, ["pets holds other files (cat, dog)"]),
    ("demo --out pets", 2, ["pets holds other files", "no study"]),
    # Studies, reports, comparisons.
    ("study plan nothing.yaml", 2, ["nothing.yaml"]),
    ("study plan smok", 2, ["smok", "perhaps you meant 'smoke'"]),
    ("study plan paper:cifar11", 2, ["cifar11", "cifar10"]),
    ("study plan smoke --set contrastive.epoch=3", 2, ["contrastive.epochs"]),
    ("study plan smoke --set epochs", 2, ["epochs", "="]),
    ("study plan page.csv", 2, ["page.csv"]),
    ("study run smoke --out r --workers=-1", 2, ["workers", "-1"]),
    ("study run smoke --out r --seeds one", 2, ["seeds", "one"]),
    ("study run smoke --out r --seeds=-1", 2, ["seed", "-1"]),
    ("study run smoke --out r --executor slurm", 2, ["slurm", "ray"]),
    ("study run smoke --out run", 2, ["run", "study"]),
    ("study status run", 2, ["run holds a run, not a study", "it has no study.yaml"]),
    ("study import page.csv --out s", 2, ["page.csv"]),
    ("report empty", 2, ["empty"]),
    ("report unfinished", 2, ["unfinished holds no finished run", "the command that began it"]),
    ("report clf", 2, ["clf holds a classifier, not a run"]),
    ("report q.png", 2, ["q.png", "folder"]),
    ("report run --probe linaer", 2, ["linaer", "knn"]),
    ("compare rows.csv --metric acc --by hed", 2, ["hed", "head"]),
    ("compare rows.csv --metric accuracy --by head", 2, ["accuracy", "acc"]),
    ("compare rows.csv --metric head --by acc", 2, ["head", "number"]),
    ("compare rows.csv --metric acc --by constant", 2, ["constant"]),
    ("compare rows.csv --metric acc --by head --higher --lower", 2, ["--higher", "--lower"]),
    ("compare rows.csv --metric acc --by head --baseline randm", 2, ["randm", "random"]),
    ("compare rows.csv --metric acc --by head --out q.png", 2, ["q.png"]),
    ("compare rows.csv --metric acc --by head --out run", 2, ["--out run", "report", "another folder"]),
    ("compare levels.csv --metric acc --by head --out .", 2, ["levels.csv", "a path of its own"]),
    ("compare page.csv --metric acc --by head", 2, ["page.csv", "HTML"]),
    ("compare zero.csv --metric acc --by head", 2, ["zero.csv", "empty"]),
    ("compare nowhere.csv --metric acc --by head", 2, ["nowhere.csv"]),
    ("compare rows.csv --metric acc --by head", 0, ["autoencoder", "random"]),
]


def odd_files(shelf: Path) -> None:
    """Folders and files that are not what they are called."""
    (shelf / "empty").mkdir()
    (shelf / "folder.png").mkdir()
    os.mkfifo(shelf / "pipe.npz")
    (shelf / "texts").mkdir()
    (shelf / "texts" / "notes.txt").write_text("buy milk\n")
    (shelf / "q.txt").write_text("this is no picture\nand no list of any\n")
    for name in ("page.csv", "page.pt"):
        (shelf / name).write_text(HTML)
    (shelf / "zero.csv").touch()
    (shelf / "headers.csv").write_text("name,label\n")
    junk = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    for name in ("binary.csv", "junk.pt", "junk.npz"):
        (shelf / name).write_bytes(junk)
    for name in ("lfs.zip", "lfs.pt"):
        (shelf / name).write_text(LFS)
    with zipfile.ZipFile(shelf / "bare.zip", "w") as archive:
        archive.writestr("notes.txt", "buy milk\n")
    (shelf / "broken.zip").write_bytes((shelf / "bare.zip").read_bytes()[:40])
    np.save(shelf / "line.npy", np.arange(100))
    (shelf / "tabs.yaml").write_text("head:\n\tinit: pca\n")
    (shelf / "listed.yaml").write_text("- head\n- contrastive\n")
    (shelf / "unknown.yaml").write_text("head: {hiden_dim: 3}\n")
    for name in ("e.json", "mine.pt.json", "mine.onnx"):
        (shelf / name).write_text('{"mine": 1}\n')
    (shelf / "texts-and-pictures").mkdir()
    for name in ("a.doc", "b.doc", "notes.txt", ".hidden"):
        (shelf / "texts-and-pictures" / name).touch()
    (shelf / "own-map").mkdir()
    (shelf / "own-map" / "map.html").write_text(HTML)
    (shelf / "own-map" / "map.csv").touch()


def odd_plugins(shelf: Path) -> None:
    """Modules of somebody's own that are not what `--plugin` takes."""
    (shelf / "plugin_folder").mkdir()
    (shelf / "plugin_lacks.py").write_text("import no_such_module_of_mine\n")
    (shelf / "plugin_wrong.py").write_text("epochs = 10\nshare = epochs / 0\n")
    (shelf / "plugin_torn.py").write_text("def head(:\n")
    (shelf / "plugin_twice.py").write_text(
        "from headstart.records.names import ACTIVATIONS, Choice\n"
        "ACTIVATIONS.register(Choice(name='relu', help='mine', make='torch.nn:ReLU'))\n"
    )


def odd_packs(shelf: Path) -> None:
    """Files of pictures: locked, cut, squeezed, of another kind, empty; and one with names from outside."""
    np.savez(shelf / "packed.npz", images=np.zeros((24, 16, 16, 3), np.uint8))
    names = np.array(["cat", None] * 12, object)
    np.savez(shelf / "objects.npz", images=np.zeros((24, 16, 16, 3), np.uint8), labels=names)
    (shelf / "pickled.npz").write_bytes(pickle.dumps({"images": [1, 2, 3]}))
    np.save(shelf / "none.npy", np.zeros((0, 8, 8, 3), np.uint8))
    np.save(shelf / "floats.npy", np.zeros((24, 8, 8, 3)))
    (shelf / "text.parquet").write_text("image,label\n1,2\n")
    with zipfile.ZipFile(shelf / "outside.zip", "w") as archive, tarfile.open(shelf / "cut.tar", "w") as tar:
        for path in sorted((shelf / "pets").rglob("*.png")):
            archive.write(path, f"../{path.relative_to(shelf)}")
            tar.add(path)
    (shelf / "cut.tar").write_bytes((shelf / "cut.tar").read_bytes()[:300])
    (shelf / "squeezed.tar").write_bytes(gzip.compress(b"0" * 9000))
    whole = bytearray((shelf / "outside.zip").read_bytes())
    for record, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = whole.find(record)
        while at >= 0:
            whole[at + flags] |= 1  # says that it is encrypted
            at = whole.find(record, at + 4)
    (shelf / "locked.zip").write_bytes(whole)


def next_packs(shelf: Path) -> None:
    """Archives and arrays that are read, but not as their first reader thought."""
    pictures, halves = np.zeros((24, 16, 16, 3), np.uint8), np.arange(24) % 2
    pets = sorted((shelf / "pets").rglob("*.png"))
    with warnings.catch_warnings(), zipfile.ZipFile(shelf / "repeated.zip", "w") as archive:
        warnings.simplefilter("ignore")
        for path in [*pets, pets[0]]:
            archive.write(path, path.relative_to(shelf))
    with zipfile.ZipFile(shelf / "bzip.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.write(pets[0])
    np.savez(shelf / "plusminus.npz", images=pictures, labels=2 * halves - 1)
    np.savez(shelf / "onehot.npz", images=pictures, labels=np.eye(2)[halves])
    classes = np.array(["cat", "dog"])
    np.savez(shelf / "named.npz", ids=np.arange(24), images=pictures, labels=halves, classes=classes)
    np.savez(shelf / "short.npz", images=pictures, labels=halves[:6])
    np.savez(shelf / "lone.npz", image=pictures[0])
    np.save(shelf / "pixelless.npy", pictures[:, :0])


def next_tables(shelf: Path) -> None:
    """Tables as other programs write them, and folders as other people lay them out."""
    six = sorted((shelf / "pets").rglob("*.png"))
    rows = [(path.relative_to(shelf).as_posix(), path.parent.name) for path in six]
    (shelf / "caffe.txt").write_text("".join(f"{name} {label}\n" for name, label in rows))
    (shelf / "indexed.csv").write_text("".join(f"{i},{name},{label}\n" for i, (name, label) in enumerate(rows)))
    (shelf / "excel.csv").write_text("sep=;\nlabel;path\n" + "".join(f"{label};{name}\n" for name, label in rows))
    (shelf / "ragged.csv").write_text("path,label\n" + "".join(f"{name},{label}, or not\n" for name, label in rows))
    (shelf / "absolute.csv").write_text("path,label\n" + "".join(f"{shelf}/{name},{label}\n" for name, label in rows))
    folder(shelf / "wrong-case", ["Cat/0.png", "cat/1.png"])
    folder(shelf / "parts-in-names", [f"{name}_{part}/0.png" for name in ("cat", "dog") for part in ("train", "test")])
    folder(shelf / "floors", [f"{way}/{name}/0.png" for way in ("raw", "cropped") for name in ("cat", "dog")])
    parts = ("labelled_train/cat", "labelled_train/dog", "test/cat", "test/dog", "unlabelled_train")
    folder(shelf / "half-labelled", [f"{part}/{i}.png" for part in parts for i in range(1 + (part == parts[-1]))])
    folder(shelf / "tabled", ["0.png", "1.png"])
    shutil.copy(shelf / "wrong.csv", shelf / "tabled" / "labels.csv")
    folder(shelf / "linked", ["cat/0.png", "dog/0.png"])
    (shelf / "linked" / "bird").symlink_to("cat")


def odd_pictures(shelf: Path) -> None:
    """Pictures in small numbers and under names from everywhere."""
    six = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)]
    for name in ("写真", "-dash", "with space", "zeros", "pets"):
        folder(shelf / name, six)
    folder(shelf / "one", ["alone.png"])
    folder(shelf / "oneclass", [f"cat/{i:02d}.png" for i in range(24)])
    folder(shelf, ["q.png"])
    (shelf / "zeros" / "cat" / "nothing.png").touch()
    lines = [f"pets/{name};{name.split('/')[0]}\n" for name in six]
    (shelf / "semicolon.csv").write_text("name;label\n" + "".join(lines))
    (shelf / "utf16.csv").write_text("name;label\n" + "".join(lines), encoding="utf-16")
    folder(shelf / "café", six)
    (shelf / "latin.csv").write_bytes(b"name,label\n" + "café/cat/0.png,félin\n".encode("latin-1"))
    (shelf / "wrong.csv").write_text("name,label\nx.png,cat\ny.png,dog\n")


def odd_runs(shelf: Path, run: Run) -> None:
    """A finished run, its classifier and embeddings, and what is left of a run in other states."""
    for name in ("run", "unfinished", "torn", "nobackbone"):
        shutil.copytree(run.folder.path, shelf / name)
    (shelf / "unfinished" / "result.json").unlink()
    (shelf / "nobackbone" / "backbone.safetensors").unlink()
    whole = (shelf / "torn" / "result.json").read_text()
    (shelf / "torn" / "result.json").write_text(whole[: len(whole) // 2])
    said = "finetune run photos --out clf --epochs 1 --no-compare --lr 0.001 --layer-decay 1 --threads 1 --device cpu"
    assert ended(said) == 0
    assert ended("embed run photos --out e.npz --threads 1 --device cpu") == 0
    (shelf / "study").mkdir()
    shutil.copy(shelf / "tabs.yaml", shelf / "study" / "study.yaml")
    with np.load(shelf / "e.npz") as found:
        arrays = dict(found)
    for name, change in (("stale", {"weights": "0" * 16}), ("lost", {"run": "/nowhere/run"})):
        about = json.loads(str(arrays["about"])) | change
        np.savez(shelf / f"{name}.npz", **{**arrays, "about": np.array(json.dumps(about))})
    rows = [f"{head},{seed},same,{0.5 + 0.1 * (head == 'random') + seed / 100}" for head in HEADS for seed in range(4)]
    for name in ("rows.csv", "levels.csv"):
        (shelf / name).write_text("\n".join(["head,seed,constant,acc", *rows]) + "\n")


HEADS = ("autoencoder", "random")


@pytest.fixture(scope="module")
def shelf(photos: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which all of them are typed."""
    place = tmp_path_factory.mktemp("shelf")
    shutil.copytree(photos, place / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("COLUMNS", "200")
        odd_files(place)
        odd_pictures(place)
        odd_packs(place)
        next_packs(place)
        next_tables(place)
        odd_plugins(place)
        patch.syspath_prepend(place)
        odd_runs(place, run)
        yield place


def ended(arguments: str) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(arguments))
    return int(stop.value.code or 0)


def what_is_there(place: Path) -> dict[str, int]:
    """Every file and folder but what Python keeps of a plugin, and when each file was last written."""
    paths = (path for path in place.rglob("*") if "__pycache__" not in path.parts)
    return {str(path): path.lstat().st_mtime_ns * (not path.is_dir()) for path in paths}


def test_it_is_a_hundred() -> None:
    assert len({said for said, _, _ in CASES}) == len(CASES) >= 100
    assert {said.split()[0] for said, _, _ in CASES} >= set(json.loads(COMMANDS))


COMMANDS = """["pretrain", "evaluate", "embed", "search", "select", "finetune", "predict", "export", "study", "report",
"check", "compare", "map", "list", "doctor", "demo"]"""


@pytest.fixture
def untrained(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shelf, once nothing may train any more: every one of these ends before that."""

    def begun(self: Loop, saved: object = None) -> None:
        raise AssertionError("it trains")

    monkeypatch.setattr(Loop, "run", begun)
    return shelf


@pytest.mark.parametrize(("said", "code", "words"), CASES, ids=[said for said, _, _ in CASES])
def test_a_newcomers_hundred(
    said: str, code: int, words: list[str], untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = what_is_there(untrained)
    capsys.readouterr()
    assert ended(said) == code, capsys.readouterr()
    heard = capsys.readouterr()
    text = " ".join((heard.out + heard.err).replace("│", " ").split())
    assert "Traceback" not in text
    assert "fault of Headstart" not in text
    for word in words:
        assert word.lower() in text.lower(), text
    if code == 2:
        assert heard.err.count("headstart: ") <= 1, heard.err
        assert what_is_there(untrained) == before


UNWRITABLE = [
    f"{PRETRAIN.removesuffix(' r')} PLACE",
    "demo --out PLACE",
    "check photos --json PLACE",
    "evaluate run --out PLACE.json",
    "evaluate torchvision:resnet18 --data photos --out PLACE.json",
    "embed run photos --out PLACE.npz",
    "search run photos --query q.png --out PLACE.png",
    "select run photos -n 3 --out PLACE",
    "map run photos --out PLACE",
    "finetune run photos --out PLACE",
    "predict clf photos --out PLACE.csv",
    "export run --format torchvision --out PLACE.pt",
    "export run --format hub --license mit --out PLACE",
    "compare rows.csv --metric acc --by head --out PLACE",
    "study run smoke --out PLACE",
    "study import rows.csv --out PLACE",
]
"""Every command that writes where it is told."""


@pytest.mark.parametrize("place", ["q.png/x", f"new/{'x' * 300}/x", "/proc/self/x"])
@pytest.mark.parametrize("said", UNWRITABLE)
def test_what_cannot_be_written_is_refused_before_a_picture_is_read(
    said: str, place: str, untrained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def begun(*arguments: object, **options: object) -> None:
        raise AssertionError("it reads")

    monkeypatch.setattr(decode, "to_rgb", begun)
    monkeypatch.setattr(check, "run", begun)
    monkeypatch.setattr(images, "prepare", begun)
    before = what_is_there(untrained)
    assert ended(said.replace("PLACE", place)) == 2
    heard = capsys.readouterr()
    assert place in heard.err.replace("\n", "")
    assert "cannot be written" in heard.err
    assert what_is_there(untrained) == before


AGAIN = [
    "check photos --json found.json",
    "evaluate run --out judged.json",
    "search e.npz --query q.png --out alike.png",
    "search e.npz --query q.png --out alike.jpg",
    "select e.npz -n 3 --out chosen",
    "map e.npz --out maps",
    "predict clf photos --out p.csv",
    "export run --format torchvision --out w.pt",
    "export run --format torchvision --out w.safetensors",
    "export run --format onnx --out w.onnx",
    "compare rows.csv --metric acc --by head --out compared",
]
"""Commands that replace what they wrote before."""


@pytest.mark.parametrize("said", AGAIN)
def test_the_same_command_again_replaces_its_own(said: str, untrained: Path) -> None:
    """An empty file, which `mktemp` leaves, is taken too."""
    out = untrained / said.split()[-1]
    if out.suffix:
        out.touch()
    threads = "" if said.startswith("compare") else " --threads 1"
    for _ in range(2):
        assert ended(said + threads) == 0
    assert out.stat().st_size
    shutil.rmtree(out) if out.is_dir() else out.unlink()


def test_an_evaluation_is_written_elsewhere_where_the_run_takes_none(
    untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(untrained / "run", untrained / "full")
    (untrained / "full" / "evaluations").touch()
    assert ended("evaluate full") == 2
    assert "full/evaluations is a file" in capsys.readouterr().err
    shutil.rmtree(untrained / "full")
