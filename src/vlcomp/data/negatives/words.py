"""What common caption words mean: classes whose members exclude each other, and pairs that do not.

A caption stays true when `man` becomes `person` or `couch` becomes `sofa`; it turns false when `man` becomes `dog`.
The tables say so for the words that most captions are made of. They only steer the choice: which of these words are
used, and how often, comes from the corpus, and words that no table knows are replaced by what the corpus shows in
their place.
"""

from __future__ import annotations

# Classes of nouns, in the singular; `_` joins a name of several words. Words that have no plural, or are used without
# an article, stand behind the `|`.
NOUNS = {
    "person": "man woman boy girl child baby lady guy kid gentleman toddler infant |",
    "role": "skier surfer snowboarder skateboarder batter catcher umpire pitcher chef cook police_officer policeman "
    "soldier worker farmer cowboy waiter waitress bride groom passenger biker cyclist student teacher doctor "
    "clown artist "
    "fisherman tennis_player baseball_player soccer_player basketball_player firefighter dancer runner musician |",
    "animal": "cat dog horse cow sheep goat elephant giraffe zebra bear bird lion tiger monkey duck pig rabbit kitten "
    "puppy deer fox squirrel seagull pigeon parrot owl turtle snake frog swan goose pony donkey bull calf "
    "lamb camel wolf butterfly penguin ostrich polar_bear fish rhino panda | cattle",
    "vehicle": "car truck bus train bicycle bike motorcycle boat airplane plane jet van taxi tractor scooter "
    "helicopter "
    "ship tram trolley trailer wagon canoe ferry ambulance sailboat kayak moped motorbike school_bus fire_truck "
    "police_car pickup_truck pickup semi_truck passenger_train freight_train air_plane airliner |",
    "furniture": "couch sofa chair bench table desk bed stool dresser shelf cabinet nightstand armchair recliner "
    "bookshelf coffee_table dining_table picnic_table park_bench office_chair counter |",
    "room": "kitchen bathroom bedroom office restaurant garage hallway classroom library living_room dining_room "
    "restroom hotel_room store shop basement |",
    "place": "beach street field park forest mountain lake river road sidewalk city farm desert hill yard garden zoo "
    "parking_lot ocean highway meadow pond valley tennis_court baseball_field train_station airport runway playground "
    "sea island soccer_field basketball_court market harbor lawn pasture stadium pier | ",
    "ground": "| grass snow sand water dirt mud",
    "dish": "pizza sandwich cake donut doughnut salad burger hamburger hot_dog pie pancake waffle cookie omelet taco "
    "burrito cupcake bagel muffin pastry steak sausage egg | pasta rice bread cheese meat bacon soup broccoli chicken "
    "ice_cream",
    "produce": "banana apple orange carrot strawberry lemon pear watermelon pineapple tomato potato pepper onion "
    "mushroom grape peach cucumber | broccoli lettuce spinach corn",
    "drink": "| wine beer coffee tea milk juice soda orange_juice",
    "tableware": "plate bowl cup glass mug fork knife spoon bottle pan pot tray vase basket jar wine_glass |",
    "electronics": "laptop computer phone television tv keyboard mouse camera monitor radio tablet printer microphone "
    "cell_phone remote_control game_controller cellphone lamp clock |",
    "appliance": "refrigerator fridge oven stove microwave toaster sink toilet bathtub dishwasher shower bath_tub |",
    "clothing": "hat shirt jacket coat dress suit tie helmet cap scarf uniform wetsuit apron sweater vest skirt "
    "glove mask backpack hoodie robe |",
    "wear": "| glasses sunglasses shoes boots jeans pants shorts gloves sneakers goggles sandals headphones",
    "sports_gear": "ball bat racket racquet skateboard surfboard snowboard frisbee kite tennis_racket tennis_racquet "
    "baseball_bat tennis_ball soccer_ball |",
    "carried": "umbrella bag suitcase book newspaper purse flag box balloon toy teddy_bear stuffed_animal guitar rope "
    "pillow blanket towel toothbrush magazine broom candle handbag doll ladder | luggage",
    "building": "building house church tower bridge barn castle cottage tent clock_tower lighthouse temple shed |",
    "street": "sign fire_hydrant stop_sign traffic_light parking_meter street_sign statue fountain mailbox bench "
    "street_light "
    "trash_can billboard phone_booth |",
    "barrier": "fence wall window door gate mirror curtain |",
    "plant": "tree flower bush rock log stump leaf cloud rose tulip palm_tree christmas_tree vine |",
    "body": "mouth hand lap head back shoulder arm leg ear nose foot paw |",
    "sport": "| tennis baseball soccer basketball football volleyball golf hockey cricket rugby",
    "meal": "| breakfast lunch dinner",
}

# Words of which one does not exclude the other: synonyms, kinds, wholes and parts. A word may be in several groups.
RELATED = """
man guy gentleman male adult groom dude
woman lady girl female adult bride
boy kid child toddler baby infant teenager
girl kid child toddler baby infant teenager
boy guy
man boy guy
adult parent
skier snowboarder
batter baseball_player catcher pitcher player
tennis_player player soccer_player basketball_player
chef cook
policeman police_officer
waiter waitress
biker cyclist
student teacher artist musician dancer runner passenger farmer worker
cat kitten pet
dog puppy pet
horse pony donkey
cow bull calf cattle ox
sheep lamb ram goat
bear polar_bear panda
bird duck goose seagull pigeon parrot owl swan penguin ostrich
bicycle bike
motorcycle motorbike moped scooter bike
airplane air_plane plane jet airliner aircraft helicopter
boat ship ferry canoe sailboat kayak
car taxi van police_car
truck pickup_truck pickup semi_truck fire_truck van trailer
train tram trolley passenger_train freight_train
bus school_bus van
wagon cart trailer
couch sofa
chair armchair stool recliner office_chair
table desk coffee_table dining_table picnic_table counter
bench park_bench
shelf cabinet bookshelf dresser nightstand
bathroom restroom
living_room room
store shop market
street road highway city sidewalk runway
field meadow pasture lawn yard park garden farm baseball_field soccer_field stadium
tennis_court stadium basketball_court
beach ocean sea pier harbor island
forest park mountain
mountain hill valley
lake river pond
park zoo playground
airport runway
grass dirt
sand dirt mud
pizza bread cheese
donut doughnut pastry bagel
cake cupcake pastry pie muffin
hamburger burger sandwich bread
hot_dog sausage sandwich
meat chicken steak sausage bacon
omelet egg
pasta rice
ice_cream cake
burrito taco
salad broccoli
soda juice
juice orange_juice
cup mug glass wine_glass
plate tray
pan pot
bowl pot basket
fork knife spoon
bottle jar
laptop computer keyboard monitor tablet
tv television monitor
phone cellphone cell_phone
camera cell_phone cellphone phone
refrigerator fridge
oven stove microwave
bathtub bath_tub shower tub
hat cap helmet
jacket coat
shirt sweater hoodie vest
suit uniform tie
dress skirt robe
glasses sunglasses goggles
shoes boots sneakers sandals
pants jeans shorts
racket racquet tennis_racket tennis_racquet
bat baseball_bat
ball tennis_ball soccer_ball
bag suitcase purse handbag luggage backpack
book newspaper magazine
toy teddy_bear stuffed_animal doll
pillow blanket towel
building house church tower barn castle cottage temple clock_tower shed
tower lighthouse
window mirror
fence wall gate
flower rose tulip plant
tree palm_tree christmas_tree
bush plant vine
leaf tree bush
hand arm
head ear nose mouth
shoulder back
leg foot paw
street_light traffic_light
sign stop_sign street_sign billboard
rock log stump
"""

# Words above the classes; they are replaced by members of a class that lies elsewhere.
HYPERNYMS = {
    "person": "animal",
    "people": "animal",
    "adult": "animal",
    "animal": "vehicle",
    "vehicle": "animal",
    "player": "animal",
    "fruit": "dish",
    "vegetable": "dish",
}
# Singular, plural where the rules are wrong.
IRREGULAR_PLURALS = (
    "man:men woman:women child:children person:people sheep:sheep fish:fish deer:deer mouse:mice foot:feet "
    "goose:geese "
    "knife:knives leaf:leaves shelf:shelves loaf:loaves calf:calves wolf:wolves policeman:policemen "
    "fisherman:fishermen "
    "bookshelf:bookshelves tomato:tomatoes potato:potatoes police_officer:police_officers gentleman:gentlemen "
    "police:police cattle:cattle wetsuit:wetsuits roof:roofs"
)
# Nouns that only hold others in place or say nothing that could be false; never replaced or swapped.
FRAME_NOUNS = frozenset(
    "front top side back middle center end edge corner bottom inside outside rear left right background "
    "foreground group "
    "bunch couple piece slice lot lots pair herd number variety picture photo photograph image view close "
    "close-up closeup "
    "area way part kind type sort bit row pile set stack line day time one ones other others something someone "
    "anything "
    "everyone everything thing things shot scene display collection selection assortment crowd flock team type "
    "types kinds pieces "
    "slices style color colors form case work air each half distance order use process game games match trick tricks"
    " place places item items it bunches groups pairs rows piles couples flight plenty amount array series range "
    "turn ride walk look bite nap selfie swing shape fashion roll loaf can cans traffic top tops parts ways edge "
    "body food foods object objects equipment furniture stuff gear home homes accessories decorations supplies "
    "appliances clothes clothing outfit outfits structure town surface counters opening size".split()
)
UNITS = (
    "video_game toilet_paper birthday_cake shopping_cart swimming_pool train_tracks train_track stuffed_bear "
    "conference_room wii_remote french_fries ski_slope double_decker_bus double_decker hot_air_balloon "
    "stainless_steel "
    "red_sox big_ben little_league fast_food high_school flat_screen computer_monitor computer_screen"
).split()
NOUN_UNITS = frozenset(UNITS)

# Adjectives: members of different groups of a class exclude each other, words of one group (joined by /) do not.
ADJECTIVES = {
    "color": "white/cream/ivory/beige black/dark red/maroon/crimson blue/navy/turquoise green "
    "yellow/gold/golden/blond/blonde "
    "orange pink purple/violet brown/tan gray/grey/silver",
    "size": "large/big/huge/giant/enormous/gigantic/massive small/little/tiny/miniature/mini",
    "height": "tall/high short/low",
    "length": "long short",
    "age": "young old/elderly/older/aged",
    "age_thing": "new/modern/brand-new old/antique/vintage/rusty/old-fashioned",
    "material": "wooden/wood metal/steel/metallic/iron plastic stone/brick/concrete/cement glass leather paper "
    "ceramic",
    "pattern": "striped plaid/checkered floral/flowered polka-dotted plain",
    "cover": "grassy snowy/snow-covered sandy rocky dusty muddy paved",
    "weather": "sunny/clear rainy cloudy/overcast foggy snowy",
    "wetness": "wet dry/dusty",
    "order": "clean/neat/tidy dirty/messy/cluttered",
    "fill": "empty/vacant full/crowded/busy/packed",
    "state": "open closed/shut",
    "sex": "male female",
    "where": "indoor outdoor",
    "width": "narrow wide",
    "form": "round/circular/oval square/rectangular triangular",
    "heat": "hot/warm cold/frozen/icy",
    "mood": "happy/smiling sad/angry",
    "count": "two three four five six seven eight nine ten",
    "light": "bright dark/dim",
    "surface": "smooth rough",
    "weight": "heavy light",
    "build": "thin/skinny/slim fat/chubby/thick",
    "rest": "asleep awake",
    "fresh": "fresh rotten",
    "hair": "bald bearded",
    "person_side": "left right",
    "doneness": "raw/uncooked cooked/baked/fried/grilled",
    "cut": "sliced/chopped whole/uncut",
    "lit": "lit unlit",
    "finish": "shiny dull/rusty",
    "amount": "many/numerous few",
    "decor": "ornate/decorated/elaborate plain/simple",
    "ripe": "ripe unripe",
}
# Adjectives that are no attribute of the picture, or too vague to be false.
VAGUE_ADJECTIVES = frozenset(
    "standing sitting living looking nice beautiful cute pretty lovely great good interesting different various "
    "other same several many few more most such "
    "own next top main certain whole entire ready able own certain unique amazing delicious tasty fancy funny "
    "strange weird "
    "odd multiple numerous single double last first second third upside back another next past half total close "
    "near like "
    "additional available visible nearby opposite individual overhead remote mobile polar teddy cross french "
    "wild public "
    "front much little-known assorted mixed colorful multi-colored multicolored overall possible real simple "
    "decorative "
    "plush ornate commercial personal electronic professional closeup top-down very ripe calm best better "
    "worst colored coloured".split()
)
# Fixed names that begin with an adjective, and words that make a new one of the adjective before them.
FIXED_NAMES = frozenset(
    "high_chair hot_tub hot_air big_screen flat_screen black_board white_board red_sox hot_sauce full_of "
    "short_of open_air "
    "white_house clear_of fresh_water wide_open dry_erase light_house hot_chocolate".split()
)
COMPOUND_ENDS = frozenset(
    "fashioned sized colored coloured shaped haired sided legged decker looking eyed screen faced topped rimmed "
    "- skinned time "
    "hour layered way story storey tiered".split()
)

# Verbs: members of different groups of a class exclude each other, but for the overlaps below.
VERBS = {
    # animate subject, no object
    "posture": "sit/rest/perch/relax/lounge/seat stand/pose/lean/wait walk/stroll/wander run/race/jog/gallop lie/lay "
    "sleep/nap jump/leap kneel swim crouch/squat dance climb crawl graze play ride eat/dine",
    "glide": "ski snowboard surf skateboard/skate walk swim run",
    # inanimate subject, no object
    "lies": "sit/rest/stand/lie/lay hang float fall/tumble",
    "moves": "park/stop drive/travel/move/go/run crash fly",
    # with an object
    "does": "hold/carry/grab/lift throw/toss catch kick hit/swing eat/bite/chew drink cut/slice "
    "cook/prepare/make wash/clean "
    "paint push pull ride drive read open wear feed pet brush hug/kiss chase fix/repair drop sell watch/view play fly "
    "use take touch build lead serve herd",
    "speaks": "talk/speak/chat sing/smile yell/shout laugh cry sleep",
}
# Verbs that are replaced, but never put in: too vague to exclude much, or rare in that class.
NEVER_PUT = frozenset(
    "rest perch relax lounge seat pose lean wait stroll wander race jog gallop lay nap leap squat graze play ride "
    "dine grab lift bite chew slice prepare make view watch touch tumble travel move go skate smile speak chat shout "
    "lead stop repair swing park use take".split()
)
# Verbs that may well be true together with the verb before the colon.
VERB_OVERLAPS = """
hold: carry grab lift eat cut drink read swing hit wear use fly brush touch catch play feed open serve sell pet hug
hold: paint cook pull push lead
use: hold read watch play open touch take push
rest: sit stand lie sleep nap lean kneel crouch
relax: sit stand lie sleep nap lean
perch: sit stand lie
pose: sit stand lean kneel crouch lie jump walk run ride swim dance climb
lean: sit kneel
wait: sit stand kneel crouch lie walk
seat: eat talk play
lie: sleep nap rest
climb: walk crawl stand
crawl: kneel
jump: run race dance
dance: stand walk run
kneel: crouch sit
swim: play stand float walk
graze: stand walk eat
play: run jump dance sit stand walk swim kneel crouch lie crawl climb
ride: sit stand run race kneel crouch lie jump drive wear lead pull push
eat: sit stand kneel lie crouch walk swim play graze cook cut serve feed
skateboard: run jump
surf: swim
fly: travel move go pull catch throw play
pet: touch brush hug feed wash
chase: herd lead run pull push
throw: drop hit serve catch play kick
hit: play serve throw catch kick push
kick: play push catch
catch: play drop
watch: herd feed read
fix: build cut touch clean paint push pull open
push: touch pull drive
pull: drive lead
wash: brush touch cook cut
cut: cook prepare serve
cook: serve
sing: talk
laugh: sing talk yell
sell: serve cook push
brush: paint
"""

# -ed and past participle where the rules are wrong; -ing where the last letter doubles is worked out.
IRREGULAR_VERBS = (
    "sit:sat:sat stand:stood:stood run:ran:run lie:lay:lain lay:laid:laid sleep:slept:slept swim:swam:swum "
    "kneel:knelt:knelt "
    "hang:hung:hung fall:fell:fallen drive:drove:driven go:went:gone fly:flew:flown sink:sank:sunk hold:held:held "
    "throw:threw:thrown catch:caught:caught hit:hit:hit swing:swung:swung eat:ate:eaten bite:bit:bitten "
    "drink:drank:drunk "
    "cut:cut:cut make:made:made ride:rode:ridden read:read:read wear:wore:worn feed:fed:fed build:built:built "
    "lead:led:led "
    "sell:sold:sold speak:spoke:spoken sing:sang:sung leap:leapt:leapt"
)
DOUBLING = frozenset("sit run nap jog stop grab hit cut hug drop pet chat swim squat".split())

# Colours that things of a kind do not have, so that a caption without a colour already denies them.
UNNATURAL = {
    **dict.fromkeys(
        "cat dog horse cow sheep goat elephant giraffe zebra bear lion tiger monkey pig rabbit kitten puppy deer fox "
        "squirrel seagull pigeon owl swan goose pony donkey bull calf lamb camel wolf penguin ostrich polar_bear "
        "rhino panda cattle".split(),
        "blue green purple pink",
    ),
    **dict.fromkeys("pizza sandwich burger hamburger bread pasta rice".split(), "blue purple pink"),
    **dict.fromkeys("hot_dog bacon chicken steak".split(), "blue purple"),  # raw meat is pink
    **dict.fromkeys("carrot lemon strawberry broccoli corn lettuce spinach".split(), "blue black"),
    "banana": "blue",  # an old one is black
    **dict.fromkeys("apple pear tomato potato cucumber mushroom".split(), "blue"),
    "orange": "blue purple",
    "grass": "blue purple red pink",
    "snow": "black green purple red",
    "sand": "green purple blue",
    "tree": "blue purple",
    "stop_sign": "green blue yellow",
    "school_bus": "green blue purple pink",
    "fire_truck": "green blue purple pink",
}  # fmt: skip
# What the object of a verb may be, for verbs that the corpus does not show with it.
OBJECTS = {
    "hold": "carried sports_gear tableware dish produce clothing electronics",
    "carry": "carried sports_gear tableware clothing animal electronics",
    "throw": "sports_gear carried",
    "toss": "sports_gear carried",
    "catch": "sports_gear animal",
    "kick": "sports_gear",
    "eat": "dish produce",
    "drink": "drink",
    "cut": "dish produce",
    "cook": "dish",
    "prepare": "dish meal",
    "wash": "animal vehicle clothing wear tableware produce appliance furniture electronics",
    "clean": "room tableware furniture appliance electronics wear clothing vehicle street barrier building",
    "paint": "barrier furniture building vehicle street sports_gear electronics appliance animal room person",
    "push": "vehicle furniture carried appliance animal",
    "pull": "vehicle carried animal",
    "ride": "vehicle",
    "drive": "vehicle",
    "wear": "clothing wear",
    "feed": "animal person",
    "pet": "animal",
    "hug": "person animal",
    "chase": "animal person role",
    "drop": "tableware dish sports_gear electronics carried",
    "sell": "dish produce carried clothing wear electronics",
    "watch": "animal vehicle sport person role above",
    "fix": "vehicle appliance electronics",
}
