#!/usr/bin/env python3
"""Writes jsonpath2.json: runs every expression below on its document with the original, jsonpath2 0.4.5.

    python3 -m venv v && v/bin/pip install jsonpath2==0.4.5 && v/bin/python make.py
"""

import contextlib
import io
import json
import pathlib

from jsonpath2.path import Path

SCAN = {
    "specversion": "1.0", "type": "org.example.scan.finished", "source": "/lab/microscope-3", "id": "A234",
    "data": [
        {"table": "Runs", "key": "operator", "value": "mira"},
        {"table": "Runs", "key": "sample", "value": "Probe é 7"},
        {"table": "Runs", "key": "dose", "value": 12.5},
        {"table": "Files", "_id": 7, "name": "scan.tif", "size": 2048, "type": "image/tiff", "tags": ["raw", "16 bit"]},
        {"table": "Files", "_id": 8, "name": "notes.txt", "size": 0, "type": "text/plain", "tags": []},
        {"table": "Files", "_id": 9, "name": "mira", "size": 31, "type": "text/plain", "checked": None},
    ],
}
TREE = {
    "name": "root", "a": {"name": "left", "a": {"name": "deep", "leaf": [1, [2, {"name": "deepest"}]]}},
    "b": [{"name": "first"}, {"other": False}, "name"], "0": "zero", "": "empty", "a b": "space", "é": "accent",
}
ROW = ["p", "q", "r", "s", "t", "u", "v"]
MAP = {"key": "b", "at": 1, "far": 9, "half": 0.5, "yes": True, "no": False, "nil": None, "list": [10, 20, 30],
       "map": {"a": "x", "b": "y", "key": "a"}, "keys": ["a", "b", "zz"], "ats": [0, 2, -1, 5]}
TEXTS = {"s": "añ😀xyz", "e": "", "n": 12, "l": ["one", "three", 4], "o": {"k": 1, "j": [2]}, "i": 2, "js": [1, 3]}
VALUES = {"one": 1, "float": 1.0, "yes": True, "no": False, "zero": 0, "nil": None, "text": "1", "empty": "",
          "big": 9007199254740993, "huge": 123456789012345678901234567890, "neg": -3, "half": 0.5,
          "list": [1, 2], "floats": [1.0, 2.0], "yeslist": [True, 2], "none": [], "obj": {"a": 1, "b": [True]}, "no_members": {},
          "quoted": "a\\\"b", "raw": "\\u00e9", "accent": "é"}
SETS = {"left": ["a", "b", "c"], "right": ["c", "a"], "first": ["a", "z"], "empty": [], "nums": [5, 1, 9], "low": [0, 2],
        "rows": [{"id": "a", "n": 1}, {"id": "b", "n": 5}, {"id": "z", "n": 9}, {"n": 2}], "pick": "b"}
FLAGS = {"a": 1, "b": False, "c": None}

# Each group: a document, and expressions to be run on it.
GROUPS = [
    (SCAN, """
        $.data[*][?(@.table = "Files")].name
        $["data"][*][?(@["table"] = "Files" and @["size"] > 30)]["name"]
        $["data"][*][?((@["table"] = "Runs") and ((@["key"] = "dose") or (@["key"] = "operator")))]["value"]
        $["data"][*][?(@["value"])]["key"]
        $.data[*][?(@.checked)]._id
        $.data[*][?(@.checked = null)]._id
        $.data[*][?(@.size)].size
        $.data[*][?(not @.size)].key
        $.data[*][?(@.tags[*] = "raw")]._id
        $.data[*][?(@.tags)]._id
        $.data[*][?(@.tags[*])]._id
        $.data[*][?(@.tags = [])]._id
        $.data[*][?(@.tags.length() = 2)]._id
        $.data[*][?(@.name = $.data[*][?(@.key = "operator")].value)]._id
        $.data[*][?(@.value = $.data[*][?(@.table = "Files")].name)].key
        $.data[*][?($.data[*][?(@.table = "Files")].name = @.value)].key
        $[?($.data[*][?(@.key = "operator" and @.value = "mira")] and $.data[*][?(@._id = 9)])].id
        $[?($.data[*][?(@.key = "operator" and @.value = "nobody")] and $.data[*][?(@._id = 9)])].id
        $[?(@.type = "org.example.scan.finished" and @.source = "/lab/microscope-3")].id
        $[?(@["type"] = "org.example.scan.started")]
        $.data[?(@.table = "Files")]
        $.data[?(@[*].table = "Files")][0].key
        $[*][?(@.table = "Files")]._id
        $[*][*][?(@.table = "Files")]._id
        $.*.*[?(@.table = "Runs")].value
        $..[?(@.size > 100)].name
        $..[?(@._id >= 8)]._id
        $..*[?(@._id >= 8)]._id
        $..name
        $..tags[*]
        $..tags[0]
        $.data[3:][?(@.type = "text/plain")].name
        $.data[-1,0].table
        $.data[*].name[substring(-4)]
        $.data[*].name[?(@ = "scan.tif")]
        $.data[*].name.length()
        $.data[*][?(@.name.substring(0,4) = "scan")]._id
        $.data[*][?(@.size < 100 and not @.checked)]._id
        $.data[*]["_id","size"]
        $.data.name
        $.data["name"]
        $.data[*].nothing
        $.data.length()
        $.data[length()]
        $.data.keys()
        $.data[1].keys()
        $.data[1].values()
        $.data[1].entries()
    """),
    (TREE, """
        $
        $.name
        $["name"]
        $.*
        $.*.name
        $.a.*
        $..name
        $..["name"]
        $..*
        $..[*]
        $..a
        $..a.name
        $..a..name
        $.a..a..name
        $..a.*
        $.*..name
        $..[0]
        $..[-1]
        $..[0,"name"]
        $..leaf..*
        $..*.name
        $..*..*
        $.b[*].name
        $.b.*
        $.b[0]["name"]
        $["b"][1]["other"]
        $.b["0"]
        $["0"]
        $[0]
        $[""]
        $["a b"]
        $["é"]
        $["a","b"]
        $["a","a"].name
        $["name",*,0]
        $.name.name
        $.name[0]
        $.name.*
        $.nothing.name
        $..nothing
        $..name.length()
        $..length()
        $..keys()
        $ .a . name
        $ [ "a" ] [ "name" ]
        $.. name
        $.. [ "name" ]
        $..[?(@.name)].name
        $..[?(@.name = "deep")].leaf[0]
        $..[?(@ = "name")]
        $..[?(@..name = "deepest")].name
        $..b[?(@)]
        $.a[?(@.a)].a[?(@.leaf)].name
        $[?(@.a.a.leaf[1][1].name = "deepest")].name
        $[?(@..leaf)].name
    """),
    (ROW, """
        $[0]
        $[6]
        $[7]
        $[-1]
        $[-7]
        $[-8]
        $[-0]
        $[1,1]
        $[5,0,-2]
        $[99999999999999999999999]
        $[-99999999999999999999999]
        $[:]
        $[::]
        $[ : : ]
        $[2:]
        $[2::]
        $[:2]
        $[:2:]
        $[2:4]
        $[4:2]
        $[-2:]
        $[:-2]
        $[-4:-2]
        $[-20:2]
        $[5:20]
        $[9:]
        $[-20:-10]
        $[::3]
        $[1::3]
        $[:5:2]
        $[1:6:2]
        $[-6:-1:2]
        $[::20]
        $[0:99999999999999999999:99999999999999999999]
        $[-99999999999999999999:2]
        $[99999999999999999999:]
        $[::-1]
        $[6::-1]
        $[:2:-1]
        $[6:2:-1]
        $[5:0:-2]
        $[2:6:-1]
        $[-1::-1]
        $[-1:0:-1]
        $[-1:-8:-1]
        $[:-9:-1]
        $[2:-10:-1]
        $[2:-30:-3]
        $[20:0:-6]
        $[20:-20:-9]
        $[::0]
        $[1:2:0]
        $[0].x[::0]
        $[*][::0]
        $[0:2,-1,1]
        $.length()
        $.entries()
        $.keys()[1:3]
        $.values()[0]
        $[?(@[6])][0]
        $[?(@[7])][0]
        $[?(@[::-1])][0]
        $[?(@[2:4] = "s")][0]
        $[*][?(@ = "q")]
        $[*][?(@ != "q")]
        $[*][?(@ < "q")]
    """),
    (MAP, """
        $.list[$.at]
        $.list[$.far]
        $.list[$.half]
        $.list[$.yes]
        $.list[$.no]
        $.list[$.nil]
        $.list[$.key]
        $.list[$.list]
        $.list[$.ats[*]]
        $.map[$.key]
        $.map[$.at]
        $.map[@.key]
        $.map[@]
        $.map[$]
        $.map[$.keys[*]]
        $.map[$.missing]
        $.map[@.key,$.key,"a"]
        $[@.key]
        $["map"][@["key"]]
        $.*[@.key]
        $..[@.key]
        $[$.keys[0],$.map.key]
        $.list[$.list.length()]
        $.list[@.length()]
        $.list[$.keys[length()]]
        $.list[$["ats"][?(@[0])][1]]
        $.list[$.ats[?(@)][0,1]]
        $[?(@.map[@.key] = "x")].key
        $[?(@[@.key])]
        $[?(@["list"][$.at] = 20)].key
        $.map[?(@[$.key] = "y")].key
        $[@.map.key, $.map["key"]]
        $.list[$.map[?(@.key = "a")].missing]
    """),
    (TEXTS, """
        $.s.length()
        $.s[length()]
        $.e.length()
        $.n.length()
        $.l.length()
        $.o.length()
        $.length()
        $.length
        $.s.length(1)
        $.s.length("x")
        $.s.charAt(0)
        $.s.charAt(2)
        $.s.charAt(-1)
        $.s.charAt(6)
        $.s.charAt(-7)
        $.s.charAt(99999999999999999999)
        $.s.charAt()
        $.s.charAt(0,1)
        $.s.charAt("0")
        $.s.charAt(1.0)
        $.s.charAt(1e0)
        $.s.charAt(true)
        $.s.charAt(false)
        $.s.charAt(null)
        $.s.charAt([0])
        $.s.charAt({})
        $.s.charAt($.i)
        $.s.charAt($.js[*])
        $.s.charAt($.missing)
        $.s.charAt(@.length())
        $.s.charAt(@)
        $.s.charAt($.l.length())
        $.l.charAt(0)
        $.l[*].charAt(0)
        $.l[*][charAt(-1),length()]
        $.e.charAt(0)
        $.s.substring(1)
        $.s.substring(-2)
        $.s.substring(9)
        $.s.substring(-9)
        $.s.substring(1,3)
        $.s.substring(1,-1)
        $.s.substring(3,1)
        $.s.substring(0,99)
        $.s.substring(-99999999999999999999,99999999999999999999)
        $.s.substring()
        $.s.substring(1,2,3)
        $.s.substring(true)
        $.s.substring("1")
        $.s.substring(0,null)
        $.s.substring(0,1.0)
        $.s.substring($.js[*])
        $.s.substring($.js[*],$.js[*])
        $.s.substring(0,$.i)
        $.s.substring(1).substring(1).charAt(0)
        $.s.length().length()
        $.o.keys()
        $.o.values()
        $.o.entries()
        $.l.keys()
        $.l.values()
        $.l.entries()
        $.s.keys()
        $.n.values()
        $.e.entries()
        $.o.keys(1)
        $.o.values($)
        $.o.entries(null)
        $.o.keys()[*]
        $.o.keys()[0].charAt(0)
        $.o.values()[1][0]
        $.o.entries()[*][1]
        $.o.entries()[*][?(@[0] = "j")][1]
        $.o[keys(),values(),"k"]
        $.l[*][?(@.length() > 3)]
        $[?(@.o.keys()[*] = "j")].n
        $[?(@.s.substring(0,1) = "a")].n
        $[?(@.l.length() = @.s.length())].n
        $[?(@.l.length() < @.s.length())].n
        $.s . charAt ( 0 )
        $.s[ charAt( 0 ) , charAt( 1 ) ]
        $..charAt(0)
        $..[length()]
    """),
    (VALUES, """
        $[?(@.one = 1.0)].one
        $[?(@.float = 1)].one
        $[?(@.one = true)].one
        $[?(@.yes = 1)].one
        $[?(@.yes = 1.0)].one
        $[?(@.no = 0)].one
        $[?(@.zero = false)].one
        $[?(@.zero = -0)].one
        $[?(@.zero = -0.0)].one
        $[?(@.zero = null)].one
        $[?(@.nil = null)].one
        $[?(@.nil = false)].one
        $[?(@.text = 1)].one
        $[?(@.text = "1")].one
        $[?(@.empty = "")].one
        $[?(@.empty != "")].one
        $[?(@.one = 1e0)].one
        $[?(@.one = 10e-1)].one
        $[?(@.one = 0.1E+1)].one
        $[?(@.half = 5e-1)].one
        $[?(@.neg = -3)].one
        $[?(@.neg = -3.0)].one
        $[?(@.big = 9007199254740993)].one
        $[?(@.big = 9007199254740992)].one
        $[?(@.big = 9007199254740992.0)].one
        $[?(@.big > 9007199254740992.0)].one
        $[?(@.huge = 123456789012345678901234567890)].one
        $[?(@.huge = 123456789012345678901234567891)].one
        $[?(@.huge > 123456789012345678901234567889)].one
        $[?(@.huge < 1e30)].one
        $[?(@.one != 1)].one
        $[?(@.one != 2)].one
        $[?(@.one != "1")].one
        $[?(@.yes != true)].one
        $[?(@.yes != 2)].one
        $[?(@.one < 2)].one
        $[?(@.one < 1)].one
        $[?(@.one <= 1)].one
        $[?(@.one > 0.5)].one
        $[?(@.one >= 1.5)].one
        $[?(@.yes > 0)].one
        $[?(@.no < true)].one
        $[?(@.yes <= @.one)].one
        $[?(@.text < "2")].one
        $[?(@.text <= "1")].one
        $[?(@.text >= 1)].one
        $[?(@.nil <= null)].one
        $[?(@.nil < 1)].one
        $[?(@.list <= [1,2])].one
        $[?(@.list >= 0)].one
        $[?(@.list = [1,2])].one
        $[?(@.list = [ 1.0 , 2 ])].one
        $[?(@.list = [2,1])].one
        $[?(@.list = [1])].one
        $[?(@.list = @.floats)].one
        $[?(@.list = @.yeslist)].one
        $[?(@.list != @.floats)].one
        $[?(@.none = [])].one
        $[?(@.none = {})].one
        $[?(@.no_members = {})].one
        $[?(@.obj = {"b":[1],"a":1.0})].one
        $[?(@.obj = {"a":1})].one
        $[?(@.obj = {"a":0,"b":[true],"a":1})].one
        $[?(@.obj != {"a":1})].one
        $[?(@.obj = {"a":1,"b":[true],"c":null})].one
        $[?({"x":{"y":[]}} = {"x":{"y":[]}})].one
        $[?(@.quoted = "a\\\\\\"b")].one
        $[?(@.quoted = "a\\"b")].one
        $[?(@.raw = "\\u00e9")].one
        $[?(@.accent = "\\u00e9")].one
        $[?(@.accent = "é")].one
        $[?(@.accent != "e")].one
        $[?(1 = @.one)].one
        $[?(2 > @.one)].one
        $[?("1" = @.text)].one
        $[?(1 = 1.0)].one
        $[?(1 = true)].one
        $[?("a" = "b")].one
        $[?(null = null)].one
        $[?([] = [])].one
        $[?(@ = @)].one
        $[?($ = @)].one
        $[?(@ != $)].one
        $[?(@.missing = null)].one
        $[?(@.missing != null)].one
        $[?(@.missing = @.absent)].one
        $[?(@.missing != @.absent)].one
        $[?(@.missing <= @.absent)].one
        $[?(@.missing < 1)].one
        $[?(@.one > @.missing)].one
        $[?(null = @.missing)].one
        $[?(not @.missing = 1)].one
        $[?(not @.missing != 1)].one
        $.*[?(@ = 1)]
        $.*[?(@ < 1)]
        $.*[?(@ != 1)]
        $.*[?(@ >= 1)]
        $.*[?(@ = true)]
        $.*[?(@ = "")]
        $.*[?(@[0] = 1)]
        $.*[?(@.a)]
    """),
    (SETS, """
        $[?(@.left[*] = "b")].pick
        $[?(@.left[*] = "z")].pick
        $[?(@.left[*] != "a")].pick
        $[?(not @.left[*] = "z")].pick
        $[?(@.empty[*] = "a")].pick
        $[?(@.empty[*] != "a")].pick
        $[?("b" = @.left[*])].pick
        $[?(@.left[*] = @.right[*])].pick
        $[?(@.left[*] = @.first[*])].pick
        $[?(@.right[*] = @.left[*])].pick
        $[?(@.left[1] = @.right[*])].pick
        $[?(@.left[*] = @.right[0])].pick
        $[?(@.right[*] = @.left[2])].pick
        $[?(@.left[*] = @.pick)].pick
        $[?(@.pick = @.left[*])].pick
        $[?(@.left[*] != @.right[*])].pick
        $[?(@.left[*] = @.empty[*])].pick
        $[?(@.empty[*] = @.left[*])].pick
        $[?(@.nums[*] > 8)].pick
        $[?(@.nums[*] < 1)].pick
        $[?(@.nums[*] < @.low[*])].pick
        $[?(@.low[*] < @.nums[*])].pick
        $[?(@.nums[*] > @.low[*])].pick
        $[?(4 < @.nums[*])].pick
        $[?(@.left = ["a","b","c"])].pick
        $[?(@["left","right"] = ["c","a"])].pick
        $[?(@["left","right"][*] = "c")].pick
        $[?(@.* = "b")].pick
        $[?(@.*[*] = 9)].pick
        $[?(@..n = 9)].pick
        $[?(@..id = "q")].pick
        $.rows[*][?(@.id = $.left[*])].n
        $.rows[*][?(@.id = $.pick)].n
        $.rows[*][?($.left[*] = @.id)].n
        $.rows[*][?(@.n = $.nums[*])].id
        $.rows[*][?(@.n != $.nums[*])].n
        $.rows[*][?(@.n = $.rows[*][?(@.id = "b")].n)].id
        $.rows[*][?(@.n > $.rows[?(@[1].id = "b")][1].n)].id
        $.rows[*][?(@.id = $.rows[*][?(@.id != "a")].id)].n
        $.rows[?(@[*].id = "z")][0].id
        $.rows[?(@[*][?(@.id = "z")])][0].id
        $[?(@.rows[*][?(@.id = "b")].n = 5)].pick
        $[?(@.rows[*][?(@.id = "b")].n = 9)].pick
        $[?(@.rows[*][?(@.id)].n = 9 and @.left[*] = "a")].pick
        $.rows[*][?(@.n = $.rows.length() or @.n = 9)].id
        $.rows[*][?(@.n < $.rows[length()])].id
        $.rows[*][?(@[?(@.n = 1)].id = "a")].n
    """),
    (FLAGS, """
        $[?(@)].a
        $[?($)].a
        $[?(@.b)].a
        $[?(@.c)].a
        $[?(@.d)].a
        $[?(not @.b)].a
        $[?(not @.d)].a
        $[?(not not @.b)].a
        $[?(not not not @.b)].a
        $[?(not(not(@.b)))].a
        $[?(not not not not (not @.d))].a
        $[?(0)].a
        $[?(-0)].a
        $[?(0.0)].a
        $[?(0e5)].a
        $[?(1e-400)].a
        $[?(-1)].a
        $[?(2.5)].a
        $[?("")].a
        $[?("0")].a
        $[?(true)].a
        $[?(false)].a
        $[?(null)].a
        $[?([])].a
        $[?([null])].a
        $[?({})].a
        $[?({"":0})].a
        $[?(not null)].a
        $[?(not "x")].a
        $[?(1 and 0)].a
        $[?(1 or 0)].a
        $[?(0 or 0 and 1)].a
        $[?(1 or 1 and 0)].a
        $[?((1) or (1 and 0))].a
        $[?(0 and 1 or 1)].a
        $[?((0 and 1) or 1)].a
        $[?(1 and 0 or 1)].a
        $[?(@.d or @.a and @.b)].a
        $[?(@.a or @.d and @.d)].a
        $[?(@.a = 1 or @.d and @.d)].a
        $[?(@.d and @.a or @.b)].a
        $[?(not @.d and not @.e)].a
        $[?(not @.a or @.b)].a
        $[?(not (@.a and @.d))].a
        $[?(not @.a = 2)].a
        $[?(not @.a = 1 or @.c = null)].a
        $[?(@.a and @.b and @.c and @.d)].a
        $[?(@.d or @.e or @.f or @.c)].a
        $[?((((@.a = 1))))].a
        $[?(((@.a) and (@.b)) and ((@.c)))].a
        $[?(@.a=1and@.b=false)].a
        $[?(not@.d)].a
        $[?("a"and"b")].a
        $[?(@.a)][?(@.b)][?(@.d)].a
        $[?(@.a),?(@.d),?(@.b)].a
        $[?(@.d),"a",*,?(1)]
        $.a[?(@)]
        $.a[?(@ = 1)]
        $.b[?(@ = 0)]
        $.c[?(@)][?(@ = null)]
        $.d[?(not @)]
        $[?(@.a)].d
        $[? ( @.a ) ].a
        $[?(@[*] = false)].a
        $[?(@.a or @[::0])].a
        $[?(@.a and @[::0])].a
        $.a[::0]
        $[?(@ .a = 1)] . a
    """),
    ([[1, 2], {"x": [3]}, 5], """
        $[?(@[0][::0])]
        $[?(@[2] or @[0][::0])][2]
        $[?(@[5] and @[0][::0])][2]
        $[?(@[2] and @[0][::0])][2]
        $[?(@[5] = @[::0])][2]
        $[?(@[2] = @[::0])][2]
        $[?(@[::0] = 1)][2]
        $[?(not @[0][::0])]
        $[*][::0]
        $[1][::0]
        $..[::0]
        $[0,::0]
        $[?(@[0,::0])][2]
        $[?(@[2,::0] = 5)][2]
        $[?(@[2,::0] = 6)][2]
        $[@[::0]]
        $[2][@[::0]]
        $[1].x[@[0:0:0]]
    """),
    ({"a": {"and": 1, "length": 2, "andy": 3, "_": 4, "A1": 5}, "or": 6}, """
        $["a"]["and"]
        $.a.andy
        $.a.length
        $.a._
        $.a.A1
        $["or"]
        $.a["length"]
        $.a.length()
    """),
]

ERRORS = ["", " ", "x", "a.b", "@", "@.a", "a$", "$$", "$@", "$a", "$.", "$..", "$...", "$. .a", "$...a", "$.a.", "$.a..", "$.1",
          "$.1a", "$.-a", "$.a-b", "$.é", "$.aé", "$.and", "$.or", "$.not", "$.true", "$.false", "$.null", "$..not", '$."a"',
          '$.["a"]', "$.[0]", "$.[*]", "$.*a", "$.**", "$*", "$.a*", "$[", "$]", "$[]", "$[ ]", "$[,]", "$[0,]", "$[,0]",
          "$[0 1]", "$[0", "$[a]", "$[length]", "$[true]", "$[null]", "$[and]", "$['a']", "$[\"a]", "$[a\"]", "$[\"a\"b]",
          "$[\"a\" \"b\"]", "$[\"\\q\"]", "$[\"\\u12\"]", "$[\"\\u12g4\"]", "$[\"\\'\"]", "$[\"a\nb\"]", "$[\"a\u0000b\"]",
          "$[00]", "$[007]", "$[-01]", "$[-]", "$[- 1]", "$[+1]", "$[1.0]", "$[0.5]", "$[1e0]", "$[1.]", "$[.5]", "$[0x1]",
          "$[1:2:3:4]", "$[:::]", "$[1.0:]", "$[:1.0]", "$[::1.0]", "$[1e0:]", "$[:1E1]", "$[a:b]", "$[\"a\":]", "$[1:*]",
          "$[**]", "$[?]", "$[?()]", "$[?@.a]", "$[?(@.a]", "$[?(@.a)", "$[?(@.a))]", "$[(@.a)]", "$[?[@.a]]", "$?(@.a)",
          "$.?(@.a)", "$[?(@.a == 1)]", "$[?(@.a === 1)]", "$[?(@.a <> 1)]", "$[?(@.a =! 1)]", "$[?(@.a => 1)]",
          "$[?(@.a =< 1)]", "$[?(@.a = = 1)]", "$[?(@.a ! = 1)]", "$[?(@.a = )]", "$[?( = 1)]", "$[?(@.a = 1 = 1)]",
          "$[?(1 < @.a < 3)]", "$[?((@.a) = 1)]", "$[?(@.a = (1))]", "$[?(@.a = not 1)]", "$[?(@.a && @.b)]",
          "$[?(@.a || @.b)]", "$[?(@.a & @.b)]", "$[?(!@.a)]", "$[?(! @.a)]", "$[?(@.a and)]", "$[?(and @.a)]",
          "$[?(@.a and or @.b)]", "$[?(@.a @.b)]", "$[?(@.a not @.b)]", "$[?(not)]", "$[?(@.a AND @.b)]", "$[?(Not @.a)]",
          "$[?(TRUE)]", "$[?(None)]", "$[?(a)]", "$[?(a = 1)]", "$[?(@.a = b)]", "$[?(@.a = 'b')]", "$[?(@.a = \"b)]",
          "$[?(@.a = 01)]", "$[?(@.a = +1)]", "$[?(@.a = .5)]", "$[?(@.a = 1.)]", "$[?(@.a = 1e)]", "$[?(@.a = 1e01)]",
          "$[?(@.a = -)]", "$[?(@.a = [1,])]", "$[?(@.a = [,1])]", "$[?(@.a = [1 2])]", "$[?(@.a = [1)]", "$[?(@.a = [@.b])]",
          "$[?(@.a = {a:1})]", "$[?(@.a = {\"a\"})]", "$[?(@.a = {\"a\":})]", "$[?(@.a = {\"a\":1,})]", "$[?(@.a = {\"a\" 1})]",
          "$[?(@.a = {1:1})]", "$[?(@.a in [1])]", "$[?(@.a =~ /b/)]", "$[?(@.a + 1 = 2)]", "$[?(*)]", "$[?(.a)]", "$[?(?(@.a))]",
          "$[?(length(@.a) = 1)]", "$[?(length() = 1)]", "$[?(@.a) and ?(@.b)]", "$[?(@.a) and (@.b)]", "$.size()", "$.foo(1)",
          "$[foo()]", "$.Length()", "$.charat(0)", "$.count()", "$.a.match(\"x\")", "$.*()", "$[*()]", "$[\"length\"()]",
          "$.length(", "$.length)", "$.length())", "$.charAt(0", "$.charAt(0,)", "$.charAt(,0)", "$.charAt(0 1)",
          "$.charAt(*)", "$.charAt(a)", "$.charAt(1 = 1)", "$.charAt(not 1)", "$.charAt(?(1))", "$.charAt(length())",
          "$[@", "$[@.a", "$[$.a.]", "$[@ $]", "$[!@]", "$[@.a = 1]", "$ a", "$.a b", "$.a;", "$.a #", "$.a/b", "$/a", "$\u00a0.a",
          "$\u2003.a", "$\u000b.a", "$.a\u0000", "\ufeff$.a", "$.a, $.b", "$.a | $.b", "$.a^", "$.a~", "${a}", "$[{}]", "$[[0]]", "$((a))"]


def run(expr, document):
    case = {"expr": expr, "document": document}
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            path = Path.parse_str(expr)
    except ValueError:
        return case | {"error": "parse"}
    try:
        return case | {"found": [match.current_value for match in path.match(document)]}
    except ValueError:
        return case | {"error": "evaluation"}


def main():
    groups = [(doc, [line.strip() for line in text.splitlines() if line.strip()]) for doc, text in GROUPS]
    groups.append(({"a": 1}, ERRORS))
    cases = [run(expr, document) for document, exprs in groups for expr in exprs]
    assert all(case.get("error") == "parse" for case in cases[-len(ERRORS):]), [c for c in cases[-len(ERRORS):] if "error" not in c]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    pathlib.Path(__file__).with_name("jsonpath2.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
