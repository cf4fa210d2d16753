import json
from tests.commands import *
from tests.pictures import class_folders
def test_x(tmp_path, bases):
    p = class_folders(tmp_path/'photos')
    (p/'train'/'cats'/'bad.png').write_bytes(b'no')
    for a in (["extract",p,"-b","vgg16","--json"],["plan",p,"-b","vgg16","--json","--image-size",64],["train",p,"--out",tmp_path/'b',"--json"],["store","ls","--json"],["store","verify","--json", "--recompute", 2],["store","export",p,"--to",tmp_path/"x.h5","--json"],["weights","ls","--json"],["weights","verify","--json"],["doctor","--json"]):
        d = run(*a); print(a, d.code, d.out, d.err)
        print(sorted(set(paths_of(d.json))))
    b = next((tmp_path/'b').iterdir())
    d = run("predict", b, p, '--json'); print(d.code, d.out[:800], d.err)
